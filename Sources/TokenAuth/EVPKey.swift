import COpenSSL

/// An RSA, P-256 or Ed25519 key in libcrypto's hands: the public half, or both.
///
/// Sendable because the key does not change once it is made, and OpenSSL's keys may be read from any thread then
/// (openssl-threads(7)).
final class EVPKey: @unchecked Sendable {
    enum Kind: Sendable { case rsa, p256, ed25519 }

    /// Of an RSA modulus: RFC 7518 section 3.3 demands the lower; the upper keeps the cost of a check bounded.
    static let modulusBits: ClosedRange<Int32> = 2048...8192

    let kind: Kind
    /// Whether it can sign.
    let isPrivate: Bool
    private let pointer: OpaquePointer

    private init(owning pointer: OpaquePointer, kind: Kind, isPrivate: Bool) {
        self.pointer = pointer
        self.kind = kind
        self.isPrivate = isPrivate
    }

    deinit { EVP_PKEY_free(pointer) }

    /// Takes over the key, and frees what it refuses.
    static func checked(owning pointer: OpaquePointer, isPrivate: Bool) throws(TokenKeyError) -> EVPKey {
        do throws(TokenKeyError) {
            let kind = try Self.kind(of: pointer)
            guard isValid(pointer, isPrivate: isPrivate) else {
                throw TokenKeyError("is no valid key: its numbers do not belong together")
            }
            return EVPKey(owning: pointer, kind: kind, isPrivate: isPrivate)
        } catch {
            EVP_PKEY_free(pointer)
            throw error
        }
    }

    private static func kind(of pointer: OpaquePointer) throws(TokenKeyError) -> Kind {
        switch EVP_PKEY_get_base_id(pointer) {
        case EVP_PKEY_RSA:
            guard modulusBits.contains(EVP_PKEY_get_bits(pointer)) else {
                throw TokenKeyError(
                    "is an RSA key of \(EVP_PKEY_get_bits(pointer)) bits, but must have \(modulusBits.lowerBound) to"
                        + " \(modulusBits.upperBound)")
            }
            return .rsa
        case EVP_PKEY_EC:
            var name = [CChar](repeating: 0, count: 64)
            var length = 0
            // A curve that is spelled out by its parameters has no name.
            guard EVP_PKEY_get_group_name(pointer, &name, name.count, &length) == 1,
                name.prefix(length).elementsEqual("prime256v1".utf8.map { CChar(bitPattern: $0) })
            else { throw TokenKeyError("is on another elliptic curve than P-256") }
            return .p256
        case EVP_PKEY_ED25519: return .ed25519
        default: throw TokenKeyError("is neither an RSA, nor a P-256, nor an Ed25519 key")
        }
    }

    private static func isValid(_ pointer: OpaquePointer, isPrivate: Bool) -> Bool {
        defer { ERR_clear_error() }
        guard let context = EVP_PKEY_CTX_new_from_pkey(nil, pointer, nil) else { return false }
        defer { EVP_PKEY_CTX_free(context) }
        guard EVP_PKEY_public_check(context) == 1 else { return false }
        return !isPrivate || EVP_PKEY_pairwise_check(context) == 1
    }

    // MARK: Signatures

    /// Whether the signature in JWS form (RFC 7518 sections 3.3 and 3.4, RFC 8037 section 3.1) is this key's over `input`.
    func verifies(_ signature: [UInt8], of input: [UInt8]) -> Bool {
        guard let encoded = kind == .p256 ? ECDSASignature.der(of: signature) : signature,
            let context = EVP_MD_CTX_new()
        else { return false }
        defer {
            EVP_MD_CTX_free(context)
            ERR_clear_error()
        }
        return EVP_DigestVerifyInit(context, nil, digest, nil, pointer) == 1
            && EVP_DigestVerify(context, encoded, encoded.count, input, input.count) == 1
    }

    /// `nil` without the private half.
    func sign(_ input: [UInt8]) -> [UInt8]? {
        guard isPrivate, let context = EVP_MD_CTX_new() else { return nil }
        defer {
            EVP_MD_CTX_free(context)
            ERR_clear_error()
        }
        var length = 0
        guard EVP_DigestSignInit(context, nil, digest, nil, pointer) == 1,
            EVP_DigestSign(context, nil, &length, input, input.count) == 1
        else { return nil }
        var signature = [UInt8](repeating: 0, count: length)
        guard EVP_DigestSign(context, &signature, &length, input, input.count) == 1 else { return nil }
        signature.removeSubrange(length...)
        return kind == .p256 ? ECDSASignature.raw(of: signature) : signature
    }

    /// Ed25519 hashes by itself.
    private var digest: OpaquePointer? { kind == .ed25519 ? nil : EVP_sha256() }

    // MARK: Its numbers

    /// A big-endian number of the key by its name in EVP_PKEY-RSA(7) or EVP_PKEY-EC(7).
    ///
    /// - Parameter length: bytes to fill up to; as few as it takes when `nil`.
    func number(_ name: String, length: Int? = nil) -> [UInt8]? {
        var number: OpaquePointer?
        guard EVP_PKEY_get_bn_param(pointer, name, &number) == 1, let number else { return nil }
        defer { BN_clear_free(number) }
        let size = length ?? Int(BN_num_bits(number) + 7) / 8
        var bytes = [UInt8](repeating: 0, count: size)
        guard BN_bn2binpad(number, &bytes, Int32(size)) == Int32(size) else { return nil }
        return bytes
    }

    /// The 32 bytes of an Ed25519 key (RFC 8032 section 5.1.5).
    func raw(private isPrivate: Bool) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: 32)
        var length = bytes.count
        let read = isPrivate ? EVP_PKEY_get_raw_private_key : EVP_PKEY_get_raw_public_key
        guard read(pointer, &bytes, &length) == 1, length == 32 else { return nil }
        return bytes
    }

    // MARK: PEM

    /// PKCS #8 (RFC 5958), not encrypted, as text (RFC 7468 section 10).
    var privatePEM: String? {
        guard isPrivate, let memory = BIO_new(BIO_s_mem()) else { return nil }
        defer { BIO_free(memory) }
        guard PEM_write_bio_PKCS8PrivateKey(memory, pointer, nil, nil, 0, nil, nil) == 1 else { return nil }
        var bytes = [UInt8](repeating: 0, count: 16384)
        let count = BIO_read(memory, &bytes, Int32(bytes.count))
        return count > 0 ? String(decoding: bytes.prefix(Int(count)), as: UTF8.self) : nil
    }

    /// One PEM block (RFC 7468): a public key (SubjectPublicKeyInfo), or a private key that is not encrypted.
    static func read(pem: [UInt8], isPrivate: Bool) throws(TokenKeyError) -> EVPKey {
        let key: OpaquePointer? = pem.withUnsafeBytes { bytes in
            // It reads from these bytes, it does not copy them.
            guard let memory = BIO_new_mem_buf(bytes.baseAddress, Int32(bytes.count)) else { return nil }
            defer {
                BIO_free(memory)
                ERR_clear_error()
            }
            // Without its own callback OpenSSL would ask for a password at the terminal.
            return isPrivate
                ? PEM_read_bio_PrivateKey(memory, nil, { _, _, _, _ in -1 }, nil)
                : PEM_read_bio_PUBKEY(memory, nil, { _, _, _, _ in -1 }, nil)
        }
        guard let key else { throw TokenKeyError("is a PEM block that holds no key, or an encrypted one") }
        return try checked(owning: key, isPrivate: isPrivate)
    }
}

/// The two forms of an ECDSA signature on P-256.
enum ECDSASignature {
    /// ECDSA-Sig-Value (RFC 3279 section 2.2.3) of r and s with 32 bytes each (RFC 7518 section 3.4); `nil` for any other
    /// length. Whether r and s lie in 1…n-1 is checked by who verifies.
    static func der(of raw: [UInt8]) -> [UInt8]? {
        guard raw.count == 64, let signature = ECDSA_SIG_new() else { return nil }
        defer { ECDSA_SIG_free(signature) }
        let r = BN_bin2bn(Array(raw[..<32]), 32, nil)
        let s = BN_bin2bn(Array(raw[32...]), 32, nil)
        guard r != nil, s != nil, ECDSA_SIG_set0(signature, r, s) == 1 else {
            BN_free(r)
            BN_free(s)
            return nil
        }
        // A P-256 signature has at most 72 bytes in DER.
        var bytes = [UInt8](repeating: 0, count: 80)
        let length = bytes.withUnsafeMutableBufferPointer { buffer in
            var end = buffer.baseAddress
            return i2d_ECDSA_SIG(signature, &end)
        }
        guard length > 0 else { return nil }
        return Array(bytes.prefix(Int(length)))
    }

    static func raw(of der: [UInt8]) -> [UInt8]? {
        let parsed = der.withUnsafeBufferPointer { buffer in
            var start = buffer.baseAddress
            return d2i_ECDSA_SIG(nil, &start, buffer.count)
        }
        guard let parsed else { return nil }
        defer { ECDSA_SIG_free(parsed) }
        var raw = [UInt8](repeating: 0, count: 64)
        let isWritten = raw.withUnsafeMutableBufferPointer { buffer in
            BN_bn2binpad(ECDSA_SIG_get0_r(parsed), buffer.baseAddress, 32) == 32
                && BN_bn2binpad(ECDSA_SIG_get0_s(parsed), buffer.baseAddress.map { $0 + 32 }, 32) == 32
        }
        return isWritten ? raw : nil
    }
}
