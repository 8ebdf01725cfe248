import Testing

@testable import Affinity

@Suite struct SipHashTests {
    private static let key: (UInt64, UInt64) = (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908)

    /// The published values for the key 00 01 … 0f and the input 00 01 … (length - 1), read as little-endian words.
    private static let published: [(length: Int, value: UInt64)] = [
        (0, 0x726f_db47_dd0e_0e31), (1, 0x74f8_39c5_93dc_67fd), (2, 0x0d6c_8009_d9a9_4f5a),
        (3, 0x8567_6696_d7fb_7e2d), (4, 0xcf27_94e0_2771_87b7), (5, 0x1876_5564_cd99_a68d),
        (6, 0xcbc9_466e_58fe_e3ce), (7, 0xab02_00f5_8b01_d137), (8, 0x93f5_f579_9a93_2462),
        (9, 0x9e00_82df_0ba9_e4b0), (15, 0xa129_ca61_49be_45e5), (16, 0x3f2a_cc7f_57c2_9bdb),
        (31, 0x32d8_92fa_d841_c342), (32, 0x7127_512f_72f2_7cce), (63, 0x958a_324c_eb06_4572),
    ]

    @Test("T25: gives the values that the paper and its reference code publish")
    func publishedVectors() {
        let hash = SipHash(key: Self.key)
        for (length, value) in Self.published {
            #expect(hash.hash((0..<length).map { UInt8($0) }) == value, "length \(length)")
        }
    }

    @Test("does not care how the bytes are stored")
    func storage() {
        let hash = SipHash(key: (1, 2))
        let text = "a user name longer than eight bytes"
        #expect(hash.hash(text.utf8) == hash.hash(Array(text.utf8)))
        #expect(hash.hash(text.utf8) == hash.hash(text.utf8.lazy.map { $0 }))
        #expect(hash.hash(text.utf8) != SipHash(key: (2, 1)).hash(text.utf8))
    }
}
