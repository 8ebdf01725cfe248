import COpenSSL

/// Keys for single purposes out of one secret.
package enum KeyDerivation {
    /// HKDF-SHA256 (RFC 5869) without salt, with `purpose` as its info: different purposes give independent keys.
    /// `length` is 1…8160 bytes.
    package static func deriveKey(secret: String, purpose: String, length: Int) -> [UInt8] {
        let key = hkdf(key: Array(secret.utf8), salt: [], info: Array(purpose.utf8), length: length)
        precondition(key != nil, "HKDF gives 1…8160 bytes, not \(length)")
        return key ?? []
    }

    /// Nil when `length` is out of range.
    static func hkdf(key: [UInt8], salt: [UInt8], info: [UInt8], length: Int) -> [UInt8]? {
        guard (1...8160).contains(length), let context = EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, nil) else { return nil }
        defer { EVP_PKEY_CTX_free(context) }
        var output = [UInt8](repeating: 0, count: length)
        var written = length
        guard EVP_PKEY_derive_init(context) > 0,
            EVP_PKEY_CTX_set_hkdf_md(context, EVP_sha256()) > 0,
            salt.isEmpty || EVP_PKEY_CTX_set1_hkdf_salt(context, salt, Int32(salt.count)) > 0,
            EVP_PKEY_CTX_set1_hkdf_key(context, key, Int32(key.count)) > 0,
            info.isEmpty || EVP_PKEY_CTX_add1_hkdf_info(context, info, Int32(info.count)) > 0,
            EVP_PKEY_derive(context, &output, &written) > 0, written == length
        else { return nil }
        return output
    }
}
