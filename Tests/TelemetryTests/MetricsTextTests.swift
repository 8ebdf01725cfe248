import Telemetry
import Testing

@Suite("Prometheus text")
struct MetricsTextTests {
    @Test("samples of one name stand together under one HELP and TYPE")
    func families() {
        var page = MetricsText()
        page.gauge("martlet_sessions", help: "Open sessions.", 3, labels: ["loop": "0"])
        page.counter("martlet_messages_total", help: "Messages.", 7)
        page.gauge("martlet_sessions", help: "Open sessions.", 4.5, labels: ["loop": "1"])
        #expect(
            page.text == """
                # HELP martlet_sessions Open sessions.
                # TYPE martlet_sessions gauge
                martlet_sessions{loop="0"} 3
                martlet_sessions{loop="1"} 4.5
                # HELP martlet_messages_total Messages.
                # TYPE martlet_messages_total counter
                martlet_messages_total 7

                """)
    }

    @Test("a histogram's buckets add up, and all its samples stand under one name")
    func histogram() {
        var page = MetricsText()
        page.histogram(
            "martlet_seconds", help: "Times.", bounds: [0.005, 1], counts: [2, 0, 3], sum: 7.5, labels: ["node": "a"])
        #expect(
            page.text == """
                # HELP martlet_seconds Times.
                # TYPE martlet_seconds histogram
                martlet_seconds_bucket{node="a",le="0.005"} 2
                martlet_seconds_bucket{node="a",le="1"} 2
                martlet_seconds_bucket{node="a",le="+Inf"} 5
                martlet_seconds_sum{node="a"} 7.5
                martlet_seconds_count{node="a"} 5

                """)
    }

    @Test("a certificate that has ended counts below nothing")
    func certificate() throws {
        var page = MetricsText()
        page.certificate("/etc/old.pem", notAfter: 0)
        let sample = try #require(page.text.split(separator: "\n").last)
        #expect(sample.hasPrefix("martlet_tls_certificate_expiry_seconds{file=\"/etc/old.pem\"} -"))
    }

    @Test("backslash, quote and newline are escaped; infinities and NaN are written as Prometheus reads them")
    func escaping() {
        var page = MetricsText()
        page.gauge("m", help: "a\\b\nc\"d", Double.infinity, labels: ["l": "x\"y\\z\n"])
        page.gauge("m", help: "", -Double.infinity)
        page.gauge("m", help: "", Double.nan)
        #expect(
            page.text == """
                # HELP m a\\\\b\\nc"d
                # TYPE m gauge
                m{l="x\\"y\\\\z\\n"} +Inf
                m -Inf
                m NaN

                """)
    }
}
