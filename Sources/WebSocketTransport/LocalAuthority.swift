import COpenSSL
package import TLSClient

/// An authority for this machine's own names, and the one certificate that it ever signs: for localhost, 127.0.0.1 and ::1.
///
/// Its key is thrown away: nobody can sign another certificate with it. It may vouch for one host name alone (RFC 5280 section
/// 4.2.1.10); constraints of addresses are not in it, as BoringSSL, and with it swift-nio-ssl, refuses what has them.
package enum LocalAuthority {
    /// Each in PEM.
    package struct Issue: Sendable {
        package let authority: [UInt8]
        package let certificate: [UInt8]
        package let key: [UInt8]
    }

    package static func issue(days: Int) throws(TLSFailure) -> Issue {
        let authorityKey = try KeyPair()
        let key = try KeyPair()
        var generator = SystemRandomNumberGenerator()
        // So that people can tell two of them apart.
        let name = "Martlet dev " + String(UInt32.random(in: 0 ... .max, using: &generator), radix: 36)
        let authority = try Certificate(name: name, key: authorityKey, days: days)
        try authority.add(NID_basic_constraints, "critical,CA:TRUE,pathlen:0", issuer: authority)
        try authority.add(NID_key_usage, "critical,keyCertSign", issuer: authority)
        try authority.add(NID_subject_key_identifier, "hash", issuer: authority)
        try authority.add(NID_name_constraints, "critical,permitted;DNS:localhost", issuer: authority)
        try authority.sign(issuer: authority, key: authorityKey)
        let certificate = try Certificate(name: "localhost", key: key, days: days)
        try certificate.add(NID_basic_constraints, "critical,CA:FALSE", issuer: authority)
        try certificate.add(NID_key_usage, "critical,digitalSignature", issuer: authority)
        try certificate.add(NID_ext_key_usage, "serverAuth", issuer: authority)
        try certificate.add(NID_authority_key_identifier, "keyid", issuer: authority)
        try certificate.add(NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1,IP:::1", issuer: authority)
        try certificate.sign(issuer: authority, key: authorityKey)
        return Issue(
            authority: try pem { PEM_write_bio_X509($0, authority.pointer) },
            certificate: try pem { PEM_write_bio_X509($0, certificate.pointer) },
            key: try pem { PEM_write_bio_PrivateKey($0, key.pointer, nil, nil, 0, nil, nil) })
    }

    private static func pem(_ write: (OpaquePointer) -> Int32) throws(TLSFailure) -> [UInt8] {
        guard let bio = BIO_new(BIO_s_mem()) else { throw failure }
        defer { BIO_free(bio) }
        guard write(bio) == 1 else { throw failure }
        var bytes = [UInt8](repeating: 0, count: BIO_ctrl_pending(bio))
        guard BIO_read(bio, &bytes, Int32(bytes.count)) == bytes.count else { throw failure }
        return bytes
    }

    fileprivate static var failure: TLSFailure {
        let reason = ERR_reason_error_string(ERR_peek_last_error()).map { ": " + String(cString: $0) } ?? ""
        return TLSFailure("OpenSSL cannot make a certificate\(reason)")
    }
}

/// On the curve P-256.
private final class KeyPair {
    let pointer: OpaquePointer

    init() throws(TLSFailure) {
        let context = EVP_PKEY_CTX_new_id(EVP_PKEY_EC, nil)
        defer { EVP_PKEY_CTX_free(context) }
        var made: OpaquePointer?
        guard EVP_PKEY_keygen_init(context) == 1,
            EVP_PKEY_CTX_set_ec_paramgen_curve_nid(context, NID_X9_62_prime256v1) == 1,
            EVP_PKEY_keygen(context, &made) == 1, let made
        else { throw LocalAuthority.failure }
        pointer = made
    }

    deinit { EVP_PKEY_free(pointer) }
}

private final class Certificate {
    let pointer: OpaquePointer

    init(name: String, key: KeyPair, days: Int) throws(TLSFailure) {
        guard let made = X509_new() else { throw LocalAuthority.failure }
        pointer = made
        var generator = SystemRandomNumberGenerator()
        let serial = UInt64.random(in: 1...UInt64(Int64.max), using: &generator)
        guard X509_set_version(made, 2) == 1, ASN1_INTEGER_set_uint64(X509_get_serialNumber(made), serial) == 1,
            X509_gmtime_adj(X509_getm_notBefore(made), -3600) != nil,
            X509_gmtime_adj(X509_getm_notAfter(made), days * 86400) != nil,
            X509_set_pubkey(made, key.pointer) == 1,
            X509_NAME_add_entry_by_txt(
                X509_get_subject_name(made), "CN", MBSTRING_FLAG, Array(name.utf8), Int32(name.utf8.count), -1, 0) == 1
        else { throw LocalAuthority.failure }
    }

    deinit { X509_free(pointer) }

    /// - Parameter value: as x509v3_config(5) writes it.
    func add(_ extensionID: Int32, _ value: String, issuer: Certificate) throws(TLSFailure) {
        var context = X509V3_CTX()
        X509V3_set_ctx(&context, issuer.pointer, pointer, nil, nil, 0)
        guard let made = X509V3_EXT_conf_nid(nil, &context, extensionID, value) else { throw LocalAuthority.failure }
        defer { X509_EXTENSION_free(made) }
        guard X509_add_ext(pointer, made, -1) == 1 else { throw LocalAuthority.failure }
    }

    func sign(issuer: Certificate, key: KeyPair) throws(TLSFailure) {
        guard X509_set_issuer_name(pointer, X509_get_subject_name(issuer.pointer)) == 1,
            X509_sign(pointer, key.pointer, EVP_sha256()) > 0
        else { throw LocalAuthority.failure }
    }
}
