// swift-tools-version: 6.2
import PackageDescription

// Folder names are the architecture; arrows only go down. `make lint` checks every import against this manifest.

// Set by `make fuzz` alone: the sanitizers of a build in which our own targets, and not what they depend on, tell the
// fuzzer which way they went, may be looked into, and check what an optimized build otherwise does not.
let sanitizers = Context.environment["FUZZING"]
let fuzzing: [SwiftSetting] =
    sanitizers.map {
        [.define("FUZZING"), .unsafeFlags(["-sanitize=\($0)", "-enable-testing", "-assert-config", "Debug"])]
    } ?? []
// ld.gold, which Swift takes where it has the choice, cannot link libFuzzer.
let fuzzLinking: [LinkerSetting] = sanitizers.map { [.unsafeFlags(["-sanitize=\($0)", "-use-ld=lld"])] } ?? []

let strict: [SwiftSetting] =
    [
        .swiftLanguageMode(.v6),
        .enableUpcomingFeature("ExistentialAny"),
        .enableUpcomingFeature("MemberImportVisibility"),
        .enableUpcomingFeature("InternalImportsByDefault"),
        .treatAllWarnings(as: .error),
    ] + fuzzing

let nioCore: Target.Dependency = .product(name: "NIOCore", package: "swift-nio")
let nioPosix: Target.Dependency = .product(name: "NIOPosix", package: "swift-nio")
let nioHTTP1: Target.Dependency = .product(name: "NIOHTTP1", package: "swift-nio")
let nioSSL: Target.Dependency = .product(name: "NIOSSL", package: "swift-nio-ssl")
let nioTLS: Target.Dependency = .product(name: "NIOTLS", package: "swift-nio")
let nioEmbedded: Target.Dependency = .product(name: "NIOEmbedded", package: "swift-nio")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let swiftProtobuf: Target.Dependency = .product(name: "SwiftProtobuf", package: "swift-protobuf")
let argumentParser: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")

let package = Package(
    name: "martlet",
    products: [
        .executable(name: "martlet", targets: ["martlet"]),
        .library(name: "MartletClient", targets: ["MartletClient"]),
    ],
    // Minor versions are taken up by hand (docs/dependencies.md says what to look at).
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", .upToNextMinor(from: "2.101.0")),
        .package(url: "https://github.com/apple/swift-nio-ssl", .upToNextMinor(from: "2.37.0")),
        .package(url: "https://github.com/apple/swift-log", .upToNextMinor(from: "1.16.0")),
        .package(url: "https://github.com/apple/swift-argument-parser", .upToNextMinor(from: "1.8.0")),
        // Without its traits, all of which are about Foundation.
        .package(url: "https://github.com/apple/swift-protobuf", .upToNextMinor(from: "1.39.0"), traits: []),
    ],
    targets: [
        .executableTarget(
            name: "martlet",
            dependencies: [
                "Admin", "Affinity", "ChatCore", "ClusterState", "LoadGenerator", "MartletClient", "NodeServer",
                "RedisClient", "RouterServer", "TLSClient", "Telemetry", "TokenAuth", "WebAssets", "WebSocketTransport",
                "WireProtocol", argumentParser, logging, nioCore, nioPosix,
            ],
            swiftSettings: strict
        ),
        .target(
            name: "NodeServer",
            dependencies: [
                "CLinux", "ChatCore", "ClusterState", "ProtobufCodec", "RedisClient", "TLSClient", "Telemetry",
                "TokenAuth", "WebAssets", "WebSocketTransport", "WireProtocol", logging, nioCore, nioPosix, nioHTTP1,
            ],
            swiftSettings: strict
        ),
        .target(
            name: "RouterServer",
            dependencies: [
                "Affinity", "CLinux", "ClusterState", "RedisClient", "TLSClient", "Telemetry", "TokenAuth",
                "WebSocketTransport",
                "WireProtocol", logging, nioCore, nioPosix, nioHTTP1,
            ],
            swiftSettings: strict
        ),
        .target(
            name: "Admin",
            dependencies: ["Affinity", "ChatCore", "ClusterState", "RedisClient", "WireProtocol", nioCore, nioPosix],
            swiftSettings: strict
        ),
        .target(
            name: "LoadGenerator",
            dependencies: ["CLinux", "COpenSSL", "Telemetry", "WireProtocol"],
            swiftSettings: strict
        ),
        .target(
            name: "MartletClient",
            dependencies: ["TLSClient", "WebSocketTransport", "WireProtocol", nioCore, nioHTTP1, nioPosix],
            swiftSettings: strict
        ),
        .target(
            name: "WebSocketTransport",
            dependencies: ["CLinux", "COpenSSL", "CZlib", "TLSClient", nioCore, nioPosix, nioHTTP1, nioSSL, nioTLS],
            swiftSettings: strict
        ),
        .target(name: "TLSClient", dependencies: [nioCore, nioSSL], swiftSettings: strict),
        .target(
            name: "ClusterState",
            dependencies: ["ChatCore", "RedisClient", "WireProtocol", nioCore],
            resources: [.embedInCode("Scripts")],
            swiftSettings: strict
        ),
        .target(name: "ChatCore", dependencies: ["WireProtocol"], swiftSettings: strict),
        .target(
            name: "RedisClient",
            dependencies: ["HiredisShim", "TLSClient", logging, nioCore, nioPosix],
            swiftSettings: strict
        ),
        .target(name: "TokenAuth", dependencies: ["ChatCore", "COpenSSL", "WireProtocol"], swiftSettings: strict),
        // martlet.pb.swift is what `make protobuf` makes of martlet.proto.
        .target(name: "ProtobufCodec", dependencies: ["WireProtocol", swiftProtobuf], swiftSettings: strict),
        .target(name: "WireProtocol", swiftSettings: strict),
        .target(name: "Affinity", swiftSettings: strict),
        .target(name: "Telemetry", dependencies: [logging], swiftSettings: strict),
        .target(
            name: "WebAssets",
            exclude: ["Client"],  // the source of Assets/martlet.js, which `make client` writes
            resources: [.embedInCode("Assets"), .embedInCode("Protocol")],
            swiftSettings: strict
        ),
        .target(name: "HiredisShim", dependencies: ["CHiredis"], linkerSettings: [.linkedLibrary("hiredis")]),
        // No pkgConfig: hiredis.pc names flags that SwiftPM warns of at each build, and its headers stand in the default path.
        .systemLibrary(name: "CHiredis", providers: [.apt(["libhiredis-dev"])]),
        .systemLibrary(name: "CLinux"),
        .systemLibrary(name: "COpenSSL", pkgConfig: "openssl", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(name: "CZlib", providers: [.apt(["zlib1g-dev"])]),
        .target(
            name: "TestSupport",
            dependencies: [
                "ChatCore", "CZlib", "ProtobufCodec", "RedisClient", "WebSocketTransport", "WireProtocol", logging,
                nioCore,
                nioPosix, swiftProtobuf,
            ],
            path: "Tests/TestSupport",
            swiftSettings: strict
        ),
        // Apart from TestSupport: the headers of OpenSSL declare types of the C library anew.
        .target(
            name: "TestTLS",
            dependencies: ["COpenSSL", "TestSupport"],
            path: "Tests/TestTLS",
            swiftSettings: strict
        ),
        .executableTarget(
            name: "EchoServer",
            dependencies: ["WebSocketTransport", nioCore, nioHTTP1, nioPosix],
            path: "Tests/EchoServer",
            swiftSettings: strict
        ),
        // The entries of `make fuzz`, empty in other release builds: they look behind `package`, as tests do.
        .target(
            name: "FuzzTargets",
            dependencies: [
                "ChatCore", "ClusterState", "COpenSSL", "MartletClient", "ProtobufCodec", "RedisClient", "RouterServer",
                "TokenAuth", "WebSocketTransport", "WireProtocol", "martlet", nioCore, nioEmbedded, nioHTTP1,
                swiftProtobuf,
            ],
            path: "Tests/Fuzz/Targets",
            swiftSettings: strict
        ),
        .systemLibrary(name: "CFuzzer", path: "Tests/Fuzz/CFuzzer"),
        .executableTarget(
            name: "Fuzz",
            dependencies: sanitizers == nil ? [] : ["CFuzzer", "FuzzTargets"],
            path: "Tests/Fuzz/Driver",
            swiftSettings: strict,
            linkerSettings: fuzzLinking
        ),
        .testTarget(
            name: "FuzzTests",
            dependencies: ["FuzzTargets"],
            swiftSettings: strict
        ),
        .testTarget(
            name: "WireProtocolTests",
            dependencies: ["TestSupport", "WireProtocol"],
            swiftSettings: strict
        ),
        .testTarget(
            name: "ProtobufCodecTests",
            dependencies: ["ProtobufCodec", "TestSupport", "WireProtocol", swiftProtobuf],
            swiftSettings: strict
        ),
        .testTarget(
            name: "AffinityTests",
            dependencies: ["Affinity", "TestSupport"],
            swiftSettings: strict
        ),
        .testTarget(
            name: "ChatCoreTests",
            dependencies: ["ChatCore", "WireProtocol"],
            swiftSettings: strict
        ),
        .testTarget(
            name: "TokenAuthTests",
            dependencies: ["ChatCore", "TokenAuth", "WireProtocol"],
            swiftSettings: strict
        ),
        .testTarget(
            name: "TelemetryTests",
            dependencies: ["Telemetry", logging],
            swiftSettings: strict
        ),
        .testTarget(
            name: "WebAssetsTests",
            dependencies: ["WebAssets", "WireProtocol"],
            swiftSettings: strict
        ),
        .testTarget(
            name: "RedisClientTests",
            dependencies: [
                "RedisClient", "HiredisShim", "TLSClient", "TestSupport", logging, nioCore, nioEmbedded, nioPosix,
            ],
            swiftSettings: strict
        ),
        .testTarget(
            name: "WebSocketTransportTests",
            dependencies: [
                "TLSClient", "TestSupport", "TestTLS", "WebSocketTransport", "CLinux", "CZlib", nioCore, nioEmbedded,
                nioHTTP1, nioPosix,
            ],
            swiftSettings: strict
        ),
        .testTarget(
            name: "ClusterStateTests",
            dependencies: ["ClusterState", "RedisClient", "ChatCore", "WireProtocol", nioCore],
            swiftSettings: strict
        ),
        .testTarget(
            name: "RouterServerTests",
            dependencies: [
                "RouterServer", "Affinity", "CLinux", "ClusterState", "TestSupport", "TestTLS", "WebSocketTransport",
                logging, nioCore, nioEmbedded, nioHTTP1, nioPosix,
            ],
            swiftSettings: strict
        ),
        .testTarget(
            name: "NodeServerTests",
            dependencies: [
                "NodeServer", "ChatCore", "ClusterState", "RedisClient", "Telemetry", "TokenAuth", "WebSocketTransport",
                "WireProtocol", logging, nioCore, nioEmbedded, nioHTTP1, nioPosix,
            ],
            swiftSettings: strict
        ),
        .testTarget(
            name: "AdminTests",
            dependencies: ["Admin", "ClusterState", "RedisClient", nioCore, nioPosix],
            swiftSettings: strict
        ),
        .testTarget(
            name: "MartletClientTests",
            dependencies: ["MartletClient", "TLSClient", "WebSocketTransport", "WireProtocol", nioCore, nioPosix],
            swiftSettings: strict
        ),
        .testTarget(
            name: "LoadGeneratorTests",
            dependencies: ["LoadGenerator"],
            swiftSettings: strict
        ),
        .testTarget(
            name: "CommandTests",
            dependencies: [
                "martlet", "Admin", "Affinity", "ClusterState", "MartletClient", "RouterServer", "WebSocketTransport",
                "WireProtocol",
            ],
            swiftSettings: strict
        ),
        .testTarget(
            name: "RedisIntegrationTests",
            dependencies: [
                "TestSupport", "Admin", "RedisClient", "TLSClient", "ClusterState", "ChatCore", "WireProtocol", logging,
                nioCore,
                nioPosix,
            ],
            swiftSettings: strict
        ),
        .testTarget(
            name: "ChaosTests",
            dependencies: ["ChatCore", "TestSupport", "ClusterState", "RedisClient"],
            swiftSettings: strict
        ),
        .testTarget(
            name: "ClusterTests",
            dependencies: [
                "CZlib", "ProtobufCodec", "TestSupport", "TestTLS", "TokenAuth", "MartletClient",
                "WebSocketTransport", "WireProtocol", "RedisClient", logging, nioCore, nioHTTP1, nioPosix,
            ],
            swiftSettings: strict
        ),
    ]
)

// What is run can be linked into tests, but into no other program: for the fuzzer martlet is a library.
if sanitizers != nil {
    package.products.removeAll { $0.name == "martlet" }
    package.targets = package.targets.map { target in
        guard target.name == "martlet" else { return target }
        return .target(name: target.name, dependencies: target.dependencies, swiftSettings: strict)
    }
}
