import Glibc
import HiredisShim
import Testing

/// The shim is compiled here against the hiredis of this machine alone; that it compiles against the other kind is seen
/// from headers that declare what the shim uses of it, written after hiredis' read.h.
@Suite("The shim and the versions of hiredis")
struct HiredisHeadersTests {
    private static let common = """
        #include <stddef.h>
        #define REDIS_ERR -1
        #define REDIS_OK 0
        #define REDIS_REPLY_STRING 1
        #define REDIS_REPLY_ARRAY 2
        #define REDIS_REPLY_INTEGER 3
        #define REDIS_REPLY_NIL 4
        #define REDIS_REPLY_STATUS 5
        #define REDIS_REPLY_ERROR 6

        """

    private static let functions = """
        redisReader *redisReaderCreateWithFunctions(redisReplyObjectFunctions *fn);
        void redisReaderFree(redisReader *r);
        int redisReaderFeed(redisReader *r, const char *buf, size_t len);
        int redisReaderGetReply(redisReader *r, void **reply);

        """

    /// Debian 12.
    private static let version0 =
        common + """
            typedef struct redisReadTask {
                int type; int elements; int idx; void *obj; struct redisReadTask *parent; void *privdata;
            } redisReadTask;
            typedef struct redisReplyObjectFunctions {
                void *(*createString)(const redisReadTask *, char *, size_t);
                void *(*createArray)(const redisReadTask *, int);
                void *(*createInteger)(const redisReadTask *, long long);
                void *(*createNil)(const redisReadTask *);
                void (*freeObject)(void *);
            } redisReplyObjectFunctions;
            typedef struct redisReader {
                int err; char errstr[128]; char *buf; size_t pos; size_t len; size_t maxbuf; redisReadTask rstack[9];
                int ridx; void *reply; redisReplyObjectFunctions *fn; void *privdata;
            } redisReader;

            """ + functions

    /// Ubuntu 24.04.
    private static let version1 =
        common + """
            #define REDIS_REPLY_DOUBLE 7
            #define REDIS_REPLY_BOOL 8
            typedef struct redisReadTask {
                int type; long long elements; int idx; void *obj; struct redisReadTask *parent; void *privdata;
            } redisReadTask;
            typedef struct redisReplyObjectFunctions {
                void *(*createString)(const redisReadTask *, char *, size_t);
                void *(*createArray)(const redisReadTask *, size_t);
                void *(*createInteger)(const redisReadTask *, long long);
                void *(*createDouble)(const redisReadTask *, double, char *, size_t);
                void *(*createNil)(const redisReadTask *);
                void *(*createBool)(const redisReadTask *, int);
                void (*freeObject)(void *);
            } redisReplyObjectFunctions;
            typedef struct redisReader {
                int err; char errstr[128]; char *buf; size_t pos; size_t len; size_t maxbuf; long long maxelements;
                redisReadTask **task; int tasks; int ridx; void *reply; redisReplyObjectFunctions *fn; void *privdata;
            } redisReader;

            """ + functions

    @Test("compiles without a warning against hiredis 0.14 and 1.2")
    func compiles() throws {
        #expect(try Self.compile(major: 0, read: Self.version0) == 0)
        #expect(try Self.compile(major: 1, read: Self.version1) == 0)
    }

    @Test("the check fails when the headers are of the other version")
    func checkIsReal() throws {
        #expect(try Self.compile(major: 1, read: Self.version0) != 0)
        #expect(try Self.compile(major: 0, read: Self.version1) != 0)
    }

    private static func compile(major: Int, read: String) throws -> Int32 {
        var template = Array("/tmp/martlet-hiredis-XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        let directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        try #require(mkdir("\(directory)/hiredis", 0o700) == 0)
        let files = [
            "\(directory)/hiredis/read.h": "#pragma once\n" + read,
            "\(directory)/hiredis/hiredis.h": "#pragma once\n#include \"read.h\"\n#define HIREDIS_MAJOR \(major)\n",
        ]
        for (path, text) in files {
            let file = try #require(fopen(path, "we"))
            fputs(text, file)
            fclose(file)
        }
        defer {
            files.keys.forEach { unlink($0) }
            rmdir("\(directory)/hiredis")
            rmdir(directory)
        }
        let root = #filePath.split(separator: "/").dropLast(3).map { "/\($0)" }.joined()
        let shim = "\(root)/Sources/HiredisShim"
        return try run([
            "cc", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-std=gnu11",
            "-Werror=incompatible-pointer-types", "-I", directory, "-I", "\(shim)/include", "\(shim)/HiredisShim.c",
        ])
    }

    private static func run(_ words: [String]) throws -> Int32 {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)
        // Else it holds the sockets of tests that run beside this one.
        for descriptor in Int32(3)..<1024 { posix_spawn_file_actions_addclose(&actions, descriptor) }
        let pointers: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { pointers.forEach { free($0) } }
        var child: pid_t = 0
        try #require(posix_spawnp(&child, "cc", &actions, nil, pointers, environ) == 0)
        var status: Int32 = 0
        while waitpid(child, &status, 0) == -1, errno == EINTR {}
        return status
    }
}
