import Testing

@testable import Telemetry

@Suite("Histogram")
struct HistogramTests {
    @Test("a quantile is within 1/64 of the value, over nine orders of magnitude")
    func error() {
        for value: UInt64 in [0, 1, 63, 64, 65, 127, 128, 1000, 999_999, 1_000_000_007, 30_000_000_000_000] {
            var histogram = Histogram()
            histogram.record(value)
            histogram.record(value * 2 + 1_000_000)
            let seen = histogram.quantile(0.5)
            #expect(seen >= value && seen - value <= value / 64, "\(value) came back as \(seen)")
            #expect(histogram.maximum == value * 2 + 1_000_000)
        }
    }

    @Test("a value may stand for several")
    func several() {
        var histogram = Histogram()
        histogram.record(10, times: 99)
        histogram.record(20)
        #expect(histogram.count == 100)
        #expect(histogram.quantile(0.99) == 10 && histogram.quantile(1) == 20)
    }

    @Test("quantiles of 1…1000 are where they belong, also after two histograms were added")
    func quantiles() {
        var whole = Histogram()
        var odd = Histogram()
        for value in UInt64(1)...1000 {
            if value % 2 == 0 { whole.record(value) } else { odd.record(value) }
        }
        whole.add(odd)
        #expect(whole.count == 1000)
        #expect((500...508).contains(whole.quantile(0.5)))
        #expect((990...1000).contains(whole.quantile(0.99)))
        #expect(whole.quantile(1) == 1000)
        #expect(Histogram().quantile(0.5) == 0)
    }
}
