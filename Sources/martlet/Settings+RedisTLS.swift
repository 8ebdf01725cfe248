import RedisClient
import TLSClient

extension Settings {
    static let redisTLSRows: [SettingRow] = [
        .optionalText(
            "MARTLET_REDIS_TLS_CA", flag: nil, \.redisTLSAuthorities, SettingSyntax.path, .redis,
            "A PEM file of the authorities that may vouch for Redis, where its URL is rediss://; it and the next two"
                + " are read at each connect.",
            unset: "those that the system trusts"),
        .optionalText(
            "MARTLET_REDIS_TLS_CERT", flag: nil, \.redisTLSCertificate, SettingSyntax.path, .redis,
            "A PEM file of the certificate that Redis is shown, with the chain behind it.", unset: "none"),
        .optionalText(
            "MARTLET_REDIS_TLS_KEY", flag: nil, \.redisTLSKey, SettingSyntax.path, .redis,
            "A PEM file of the key of MARTLET_REDIS_TLS_CERT, without a passphrase.", unset: "none"),
        .optionalText(
            "MARTLET_REDIS_TLS_SERVER_NAME", flag: nil, \.redisTLSServerName, SettingSyntax.hostName, .redis,
            "The name that the certificate of Redis must have.", unset: "the host of MARTLET_REDIS_URL"),
    ]

    /// Where Redis is; the files of TLS to it can be used.
    func redisConfiguration() throws(Failure) -> RedisConfiguration {
        let tls = TLSClientOptions(
            authorities: redisTLSAuthorities, certificate: redisTLSCertificate, key: redisTLSKey,
            serverName: redisTLSServerName)
        let configuration: RedisConfiguration
        do throws(RedisConfigurationError) {
            configuration = try RedisConfiguration(url: redisURL, keyPrefix: redisPrefix, tls: tls)
        } catch {
            throw Failure(.usage, "\(name(of: "MARTLET_REDIS_URL")): \(error)")
        }
        do throws(TLSFailure) {
            try configuration.checkFiles()
        } catch {
            let names = names(ofGiven: "MARTLET_REDIS_TLS_CA", "MARTLET_REDIS_TLS_CERT", "MARTLET_REDIS_TLS_KEY")
            throw Failure(.usage, "\(names): \(error)")
        }
        return configuration
    }
}
