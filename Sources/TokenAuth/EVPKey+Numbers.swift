import COpenSSL

// Keys out of their numbers, and new ones.
extension EVPKey {
    /// The numbers are big-endian.
    struct RSANumbers {
        var modulus: [UInt8]
        var exponent: [UInt8]
        var privateExponent: [UInt8]?
        /// p, q, dp, dq, qi: all five or none.
        var factors: [[UInt8]] = []
    }

    static func rsa(_ numbers: RSANumbers) throws(TokenKeyError) -> EVPKey {
        var fields: [(StaticString, [UInt8])] = [("n", numbers.modulus), ("e", numbers.exponent)]
        if let secret = numbers.privateExponent {
            fields.append(("d", secret))
            let names: [StaticString] = [
                "rsa-factor1", "rsa-factor2", "rsa-exponent1", "rsa-exponent2", "rsa-coefficient1",
            ]
            if numbers.factors.count == names.count { fields += zip(names, numbers.factors) }
        }
        // No number of a key that is taken is longer; BIGNUMs of any size would be made otherwise.
        guard fields.allSatisfy({ $0.1.count <= Int(modulusBits.upperBound) / 8 }) else {
            throw TokenKeyError("is an RSA key of more than \(modulusBits.upperBound) bits")
        }
        return try make("RSA", numbers: fields, isPrivate: numbers.privateExponent != nil)
    }

    /// - Parameters:
    ///   - x: 32 bytes, as is `y`.
    ///   - secret: 32 bytes.
    static func p256(x: [UInt8], y: [UInt8], secret: [UInt8]?) throws(TokenKeyError) -> EVPKey {
        guard x.count == 32, y.count == 32, secret.map({ $0.count == 32 }) ?? true else {
            throw TokenKeyError("is no P-256 key: its numbers must have 32 bytes each")
        }
        var numbers: [(StaticString, [UInt8])] = []
        if let secret { numbers.append(("priv", secret)) }
        return try make("EC", numbers: numbers, point: [4] + x + y, isPrivate: secret != nil)
    }

    static func ed25519(public bytes: [UInt8], secret: [UInt8]?) throws(TokenKeyError) -> EVPKey {
        guard bytes.count == 32, secret.map({ $0.count == 32 }) ?? true else {
            throw TokenKeyError("is no Ed25519 key: it must have 32 bytes")
        }
        let made =
            secret.map { EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nil, $0, $0.count) }
            ?? EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nil, bytes, bytes.count)
        guard let made else { throw TokenKeyError("is no Ed25519 key") }
        let key = try checked(owning: made, isPrivate: secret != nil)
        guard key.raw(private: false) == bytes else { throw TokenKeyError("has a d that does not belong to its x") }
        return key
    }

    /// A new pair; RSA with 2048 bits.
    static func generate(_ kind: Kind) throws(TokenKeyError) -> EVPKey {
        let name =
            switch kind {
            case .rsa: "RSA"
            case .p256: "EC"
            case .ed25519: "ED25519"
            }
        guard let context = EVP_PKEY_CTX_new_from_name(nil, name, nil) else { throw TokenKeyError("cannot be made") }
        defer {
            EVP_PKEY_CTX_free(context)
            ERR_clear_error()
        }
        var key: OpaquePointer?
        guard EVP_PKEY_keygen_init(context) == 1,
            kind != .rsa || EVP_PKEY_CTX_set_rsa_keygen_bits(context, modulusBits.lowerBound) == 1,
            kind != .p256 || EVP_PKEY_CTX_set_group_name(context, "P-256") == 1,
            EVP_PKEY_generate(context, &key) == 1, let key
        else { throw TokenKeyError("cannot be made") }
        return try checked(owning: key, isPrivate: true)
    }

    /// By EVP_PKEY_fromdata(3). The builder keeps pointers to names and bytes until the parameters have been used, so the
    /// names are static and the bytes live around all of it.
    private static func make(
        _ type: String, numbers: [(StaticString, [UInt8])], point: [UInt8]? = nil, isPrivate: Bool
    ) throws(TokenKeyError) -> EVPKey {
        guard let builder = OSSL_PARAM_BLD_new(), let context = EVP_PKEY_CTX_new_from_name(nil, type, nil) else {
            throw TokenKeyError("cannot be read")
        }
        var bignums: [OpaquePointer] = []
        defer {
            for number in bignums { BN_clear_free(number) }
            OSSL_PARAM_BLD_free(builder)
            EVP_PKEY_CTX_free(context)
            ERR_clear_error()
        }
        var isBuilt = true
        for (name, bytes) in numbers {
            guard let number = BN_bin2bn(bytes, Int32(bytes.count), nil) else { throw TokenKeyError("cannot be read") }
            bignums.append(number)
            isBuilt = isBuilt && OSSL_PARAM_BLD_push_BN(builder, cString(name), number) == 1
        }
        let key: OpaquePointer? = (point ?? []).withUnsafeBytes { point in
            if !point.isEmpty {
                isBuilt =
                    isBuilt && OSSL_PARAM_BLD_push_utf8_string(builder, cString("group"), cString("P-256"), 0) == 1
                    && OSSL_PARAM_BLD_push_octet_string(builder, cString("pub"), point.baseAddress, point.count) == 1
            }
            guard isBuilt, let parameters = OSSL_PARAM_BLD_to_param(builder) else { return nil }
            defer { OSSL_PARAM_free(parameters) }
            var key: OpaquePointer?
            let selection = isPrivate ? martlet_evp_pkey_keypair() : martlet_evp_pkey_public_key()
            guard EVP_PKEY_fromdata_init(context) == 1,
                EVP_PKEY_fromdata(context, &key, selection, parameters) == 1
            else { return nil }
            return key
        }
        guard let key else { throw TokenKeyError("is no valid key: its numbers do not belong together") }
        return try checked(owning: key, isPrivate: isPrivate)
    }

    private static func cString(_ text: StaticString) -> UnsafePointer<CChar> {
        UnsafeRawPointer(text.utf8Start).assumingMemoryBound(to: CChar.self)
    }
}
