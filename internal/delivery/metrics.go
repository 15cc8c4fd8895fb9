package delivery

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// maxLines bounds how many actions the metrics name: the longest lines. Each
// would be a series of its own, and there may be thousands.
const maxLines = 20

// metrics counts what becomes of matches and shows, when asked, what is undone:
// that is read from the lines at each scrape.
type metrics struct {
	attempts *prometheus.CounterVec
	retries  prometheus.Counter
	dead     prometheus.Counter
	delivery *Delivery

	undone, bytes, line, holding *prometheus.Desc
}

// WithMetrics has the delivery's metrics registered. Without it they are
// counted for nobody.
func WithMetrics(r prometheus.Registerer) Option {
	return func(d *Delivery) { r.MustRegister(d.metrics) }
}

func newMetrics(d *Delivery) *metrics {
	return &metrics{
		delivery: d,
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_attempts_total", Help: "Attempts that ended, blocking calls included, by outcome.",
		}, []string{"outcome"}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "millrace_retries_total", Help: "Failed attempts that another one follows.",
		}),
		dead: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "millrace_dead_letters_total", Help: "Matches that became dead letters.",
		}),
		undone:  prometheus.NewDesc("millrace_undone", "Matches and calls that are not done.", nil, nil),
		bytes:   prometheus.NewDesc("millrace_undone_bytes", "Bytes of what is not done.", nil, nil),
		line:    prometheus.NewDesc("millrace_line_undone", "Matches and calls of an action that are not done, for the longest lines.", []string{"action"}, nil),
		holding: prometheus.NewDesc("millrace_judge_held", "1 while no event is judged because too much is undone, by the action that has most of it.", []string{"action"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	m.attempts.Describe(ch)
	m.retries.Describe(ch)
	m.dead.Describe(ch)
	for _, d := range []*prometheus.Desc{m.undone, m.bytes, m.line, m.holding} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	m.attempts.Collect(ch)
	m.retries.Collect(ch)
	m.dead.Collect(ch)
	type length struct {
		action string
		undone int
	}
	d := m.delivery
	// Only copies are made under the lock; sorting and sending go on without
	// it.
	d.mu.Lock()
	count, bytes, held := d.count, d.bytes, ""
	if d.holding != nil {
		held = d.holding.name.String()
	}
	lines := make([]length, 0, len(d.lines))
	for _, l := range d.lines {
		lines = append(lines, length{l.name.String(), l.undone})
	}
	d.mu.Unlock()
	gauge := func(desc *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, labels...)
	}
	gauge(m.undone, float64(count))
	gauge(m.bytes, float64(bytes))
	if held != "" {
		gauge(m.holding, 1, held)
	}
	slices.SortFunc(lines, func(a, b length) int { return b.undone - a.undone })
	for _, l := range lines[:min(len(lines), maxLines)] {
		gauge(m.line, float64(l.undone), l.action)
	}
}
