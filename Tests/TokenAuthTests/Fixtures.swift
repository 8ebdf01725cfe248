/// Keys made with the cryptography package of Python, for these tests alone.
enum Fixtures {
    static let p256PEM = """
        -----BEGIN PUBLIC KEY-----
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAESbzw5hpdNPrdYwtXiCshJHhTgvC+
        DkgPTwbBxH4Sgez2fsoxGJQg1bac35YvRk4eiWfW9kaD2wCfDAN632JuXw==
        -----END PUBLIC KEY-----
        """

    static let p256Private = """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgkLDUxJjCQcdCrpTq
        kaCOBq7YP18JM4An2QeqoeZYRhWhRANCAARJvPDmGl00+t1jC1eIKyEkeFOC8L4O
        SA9PBsHEfhKB7PZ+yjEYlCDVtpzfli9GTh6JZ9b2RoPbAJ8MA3rfYm5f
        -----END PRIVATE KEY-----
        """

    static let p256SEC1 = """
        -----BEGIN EC PRIVATE KEY-----
        MHcCAQEEIJCw1MSYwkHHQq6U6pGgjgau2D9fCTOAJ9kHqqHmWEYVoAoGCCqGSM49
        AwEHoUQDQgAESbzw5hpdNPrdYwtXiCshJHhTgvC+DkgPTwbBxH4Sgez2fsoxGJQg
        1bac35YvRk4eiWfW9kaD2wCfDAN632JuXw==
        -----END EC PRIVATE KEY-----
        """

    static let p384PEM = """
        -----BEGIN PUBLIC KEY-----
        MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEHkvHsvUqi9AQ9dVkOkS8DLcfoKWYc0QB
        L8bg9hL9geLTPqlyKrjF6wGW4uPgE6yx6uikkTbDMXu3uU2+WyOXEOTSxC2OI+Yy
        aJ3xaj4y6CWyJJC3+EKIO2puVYOvRi5C
        -----END PUBLIC KEY-----
        """

    static let secp256k1PEM = """
        -----BEGIN PUBLIC KEY-----
        MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEMH04v7rXtviGKgkenV0Hf78/3tO1cIZo
        Wpcmxx/YWXgUrgT8WjwYZcStPnMTC2NuZ/58/59UinnMB+cXC8sqaA==
        -----END PUBLIC KEY-----
        """

    static let rsa1024PEM = """
        -----BEGIN PUBLIC KEY-----
        MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCk8vl32PkjDWbrlz/dTjb9jRmn
        Xyd5IT29sBXuZQGJ/8lI4nE01Z6rgzFwZ6xbImTEhya+7Qror/nQaH2kLT7RIFrc
        O2H/Sj8b6snffg4t3jRcPHWBx14rYDreEmdbZEmKDCm5Nmj6wZv46UrqbH6Lwv6N
        8DgF+yPf8JuX4OMPnQIDAQAB
        -----END PUBLIC KEY-----
        """

    static let rsaPEM = """
        -----BEGIN PUBLIC KEY-----
        MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAvlwWXfowqv39mch9ggsk
        hTX4e6WJriTAR/ZdVPxgSui/OIrsVASnudGT4QErW/mlHvfkk7sPGuO6ENsXqoP4
        d//OI6kkwiFzoYFdW1KmVd82K0jGua7chHZtsT39WPL4nzsbl5vzB5jkbHN76lmI
        3Z+rRcRLLNVnFOmTYXOCvnITyqha+sjXWCz7c1gkWUTCoMlkzeilXmVy4cVMd8pL
        doi3szSBg/n5wr74Ja997KT17FcwulLqxYFpAxvSF7e1fnjm9/hCFW9wtsE7y4aa
        oS6sc2B54zPzXbwlLWtzNxiHRZvsR7YMZkN4SBk/at0uxpxQXezmbwDOiJOON8LM
        KQIDAQAB
        -----END PUBLIC KEY-----
        """

    static let rsaPrivate = """
        -----BEGIN PRIVATE KEY-----
        MIIEugIBADANBgkqhkiG9w0BAQEFAASCBKQwggSgAgEAAoIBAQC+XBZd+jCq/f2Z
        yH2CCySFNfh7pYmuJMBH9l1U/GBK6L84iuxUBKe50ZPhAStb+aUe9+STuw8a47oQ
        2xeqg/h3/84jqSTCIXOhgV1bUqZV3zYrSMa5rtyEdm2xPf1Y8vifOxuXm/MHmORs
        c3vqWYjdn6tFxEss1WcU6ZNhc4K+chPKqFr6yNdYLPtzWCRZRMKgyWTN6KVeZXLh
        xUx3ykt2iLezNIGD+fnCvvglr33spPXsVzC6UurFgWkDG9IXt7V+eOb3+EIVb3C2
        wTvLhpqhLqxzYHnjM/NdvCUta3M3GIdFm+xHtgxmQ3hIGT9q3S7GnFBd7OZvAM6I
        k443wswpAgMBAAECgf9UtNA/LABRa98Cz3RfVGtWhkL2wnLBoG5E7MbF9TKOzYL0
        ZjKY2yQc9mVsz627qnBk7L+J/XMl7q/ypYuiakHmeVisBa2VtSJUe9GkZuLIKMtc
        ohshWpjwrhehsd6f9iksBzaqqs/k/DlTs7qFoycuzMjUrW8bmYUv3mr2slqQ45bR
        ed6+MHL2fV+m7kqkb4f6p9WzO9t0EZ9DOTfL9jlAqlZj77kccJNal7Gl4IKC+s5N
        DthPWHxbGlK1WAjaHoBgewQikKiCSGrFgd0CdjibkG/IcycDZhY2TXCt9wpWv3Jt
        SVJkOO30IVoNmpTMGO5qVUjDHMzJincd2tRY4lUCgYEA/L3iMBkrCs3HGhny4BIj
        ggq21wvjWDUQHSlbyAlO0+CpvOBSvcWAPVKpaaUnw5bXshGRMYmz85RUf/TEZ/+6
        BVjqj6GxAYGw7vTmEOp+zFhl78Sj4OZlDed47I+h3P9lx121FYCWOHzO7G6JtjYE
        R+jD9nHE+6FS914k8P3aMl0CgYEAwNBTgjgwkBWtmR5IXcUHBNnRzTFLBlOisgyo
        HBNwX1H0IFcKtZeIHGj27IicWQRcwCI+FZWxlwslxDaaqSNxkFHK4ghgz6xotzHT
        v4jYGEmkHpglDY2kKTE4lDt+7tz5FUiSMfQoSF+tKj5pl6lNnr0KR1sQvkVUIbhp
        3cFjPD0CgYBBVSBcCJV8xHa8Q4rp6yZsnjJnYnZRPd49e4xzKBzNXlziKyaYUa51
        q6GJYpzlzV9Sc4IRySPQSj6RmQcQTyWZ7kMr/8MOvaSsEHhMVSGT1yH6md027Leg
        oX47wGE6DHcV0x5VQZkTXwfqTCSjClGO+Rd25C/kT+5vbVGlTimSLQKBgE9V6OaN
        5D2FDfcQ5MnghjDSx2bcv3gM9ca5OnrC7Nvrxr1/0yJBBXpbHi7ZTyu5hchwzobn
        Hzl9Fr8TkLPDp7iwTwCOXfdVg4jNcck/r1rfAi6sf6KCA2gHnrYvfN0gA0VkpPL0
        +ZY99+yH3b7PpOaJ9i7CI7OGp0Vwse7S4dgpAoGAYii5L2JsXgpYvWC/QdgyKgcJ
        ibFU7beeazxkqzYN1Nlu1Y+oY4UIGzlQzhI0Q9pkcUcNWImwWNU1P79Upe3QTaKe
        BuCzyQKU4HkosRxoSEL4PTnzSKbUD9K9k4YzeEeZdRqwrRTqF7ooWRvd8pKtTfn0
        GvCQKR9L56BbrQAI+gA=
        -----END PRIVATE KEY-----
        """

    static let ed25519PEM = """
        -----BEGIN PUBLIC KEY-----
        MCowBQYDK2VwAyEAo576CZcaFYkCEr5YAEr5YL3t7gtv9JG75+Kjad4msrQ=
        -----END PUBLIC KEY-----
        """

    static let ed25519Private = """
        -----BEGIN PRIVATE KEY-----
        MC4CAQAwBQYDK2VwBCIEIABsRauynsDV2gVaftxO0vRz1FNyOAvDnIP8j915Oor1
        -----END PRIVATE KEY-----
        """

    static let ed448PEM = """
        -----BEGIN PUBLIC KEY-----
        MEMwBQYDK2VxAzoAwCQutP6lEurNysy6QYKCv3FFy9Ze7xmh52wtA5HUhAcFnTlg
        nvgHa/Vq8EMdDb1zjyE/AXVJtvmA
        -----END PUBLIC KEY-----
        """

    static let encryptedPEM = """
        -----BEGIN ENCRYPTED PRIVATE KEY-----
        MIH0MF8GCSqGSIb3DQEFDTBSMDEGCSqGSIb3DQEFDDAkBBChIkyUaPisHBrLtKO9
        4db3AgIIADAMBggqhkiG9w0CCQUAMB0GCWCGSAFlAwQBKgQQ8AdSVG2tVxh+1ZiS
        mHaMKgSBkBL+uTDUl0wdBENB1L/0MFwI3ojPABi1zXyzWnMhCGFsYP8+GlSfghe9
        tiUFINMsLzXNkh7p/ahurtObG46ECwFABcVoaHeQJcecaRtQzPTvuNKQKcarnpxb
        70cLOGh70Fn6pGBlN4mRJy+JDJwFdeskicsP/+bQdB4eqYT9jPiWAUpzCuF5xkuR
        5IzVPGahYg==
        -----END ENCRYPTED PRIVATE KEY-----
        """

    /// A P-384 certificate's frame: what it holds is not looked at.
    static let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"

    /// RFC 7515 appendix A.2.1, the public half.
    static let rfc7515RSA = """
        {"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4\
        d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS\
        -UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91\
        kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}
        """

    /// RFC 7515 appendix A.2.
    static let rfc7515RS256 = """
        eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnV\
        lfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CU\
        Ar7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--x\
        i12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypG\
        lUPQGe77Rw
        """

    /// RFC 7515 appendix A.3.1.
    static let rfc7515EC = """
        {"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",\
        "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}
        """

    /// RFC 7515 appendix A.3.
    static let rfc7515ES256 = """
        eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnV\
        lfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q
        """

    /// RFC 8037 appendix A.1.
    static let rfc8037 = """
        {"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",\
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
        """

    /// RFC 7638 section 3.1.
    static let rfc7638 = """
        {"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRX\
        jBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zg\
        dAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8aw\
        apJzKnqDKgw","e":"AQAB","alg":"RS256"}
        """
}
