import Testing
import WebAssets
import WireProtocol

struct WebAssetsTests {
    @Test("The page, its scripts and its style are found under their paths")
    func paths() throws {
        let page = try #require(WebAssets.find(path: "/"))
        #expect(page.contentType == "text/html; charset=utf-8")
        for path in ["/martlet.js", "/chat.js", "/chat.css", "/favicon.svg"] {
            #expect(WebAssets.find(path: path)?.bytes.isEmpty == false)
        }
        #expect(WebAssets.find(path: "/../chat.html") == nil)
        #expect(WebAssets.find(path: "") == nil)
    }

    @Test("Whatever a file refers to is served too, and nothing comes from another host")
    func references() throws {
        for asset in WebAssets.all {
            let text = String(decoding: asset.bytes, as: UTF8.self)
            for reference in text.references {
                #expect(WebAssets.find(path: reference) != nil, "\(asset.path) refers to \(reference)")
            }
        }
    }

    @Test("The page has no inline script or style, so the content security policy holds it")
    func noInlineCode() throws {
        let page = String(decoding: try #require(WebAssets.find(path: "/")).bytes, as: UTF8.self)
        #expect(!page.contains("<style"))
        #expect(!page.contains("style="))
        #expect(!page.contains(" onclick="))
        #expect(page.ranges(of: "<script").count == page.ranges(of: "<script type=\"module\" src=").count)
    }

    @Test("No script parses text from people as HTML")
    func noHTMLFromText() {
        for asset in WebAssets.all where asset.path.hasSuffix(".js") {
            let text = String(decoding: asset.bytes, as: UTF8.self)
            for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
                #expect(!text.contains(sink), "\(asset.path) uses \(sink)")
            }
        }
    }

    @Test("Each content has its own entity tag")
    func entityTags() {
        let tags = Set(WebAssets.all.map(\.etag))
        #expect(tags.count == WebAssets.all.count)
        #expect(tags.allSatisfy { $0.hasPrefix("\"") && $0.hasSuffix("\"") })
    }

    @Test("The JavaScript client is one file of less than 13 KB")
    func clientIsOneSmallFile() throws {
        let client = try #require(WebAssets.find(path: "/martlet.js"))
        #expect(client.bytes.count < 13 * 1024)
        #expect(String(decoding: client.bytes, as: UTF8.self).references.isEmpty)
    }

    @Test("martlet.d.ts names every numbered error as the servers do")
    func errorTable() throws {
        let types = String(decoding: try #require(WebAssets.find(path: "/martlet.d.ts")).bytes, as: UTF8.self)
        let start = try #require(types.firstRange(of: "export interface Errors {\n")).upperBound
        let end = try #require(types[start...].firstRange(of: "\n}")).lowerBound
        let expected = WireError.Code.allCases.map { "  \($0.rawValue): \"\($0.reason)\";" }
        #expect(types[start..<end] == expected.joined(separator: "\n"))
    }

    @Test("The schema of the protocol names every numbered error as the servers do")
    func schemaErrors() throws {
        let schema = String(decoding: try #require(WebAssets.find(path: "/protocol/schema.json")).bytes, as: UTF8.self)
        let start = try #require(schema.firstRange(of: "\"numberedError\": {\n")).upperBound
        let end = try #require(schema[start...].firstRange(of: "]")).lowerBound
        let rows = schema[start..<end].split(separator: "\n").dropFirst()
            .map { $0.trimmingPrefix { $0 == " " } }.filter { !$0.isEmpty }
        let expected = WireError.Code.allCases.map {
            "{\"properties\": {\"code\": {\"const\": \($0.rawValue)}, \"reason\": {\"const\": \"\($0.reason)\"}}}"
        }
        #expect(rows.joined(separator: "\n") == expected.joined(separator: ",\n"))
    }
}

extension String {
    /// The paths in `src=`, `href=` and `from`, but for places within the page. All files stand in one folder.
    fileprivate var references: [String] {
        ["src=\"", "href=\"", "from \""].flatMap { opening in
            ranges(of: opening).map { String(self[$0.upperBound...].prefix { $0 != "\"" }) }
        }.filter { !$0.hasPrefix("#") }.map { $0.hasPrefix("./") ? String($0.dropFirst()) : $0 }
    }
}
