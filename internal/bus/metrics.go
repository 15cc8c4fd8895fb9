package bus

import "github.com/prometheus/client_golang/prometheus"

// metrics are what the bus tells of itself.
type metrics struct {
	accepted prometheus.Counter
	flush    prometheus.Histogram
	archive  prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) metrics {
	m := metrics{
		accepted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "millrace_events_accepted_total", Help: "Events stored and flushed.",
		}),
		flush: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "millrace_flush_seconds", Help: "Time of one flush of the store.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 14),
		}),
		archive: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "millrace_archive_bytes", Help: "Size of the archive of events.",
		}),
	}
	if r != nil {
		r.MustRegister(m.accepted, m.flush, m.archive)
	}
	return m
}
