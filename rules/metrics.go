package rules

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/internal/whisk"
)

// metrics counts what the engine does.
type metrics struct {
	events   prometheus.Counter
	problems prometheus.Counter
	verdicts map[whisk.Decision]prometheus.Counter
}

// WithMetrics has the engine's metrics registered. Without it they are counted
// for nobody.
func WithMetrics(r prometheus.Registerer) Option {
	return func(e *Engine) { e.metrics = newMetrics(r) }
}

func newMetrics(r prometheus.Registerer) *metrics {
	events := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "millrace_events_judged_total", Help: "Events that were judged.",
	})
	problems := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "millrace_events_problem_total", Help: "Events that could not be judged by their rules and became dead letters.",
	})
	verdicts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "millrace_rule_verdicts_total", Help: "What rules made of events, by decision.",
	}, []string{"decision"})
	if r != nil {
		r.MustRegister(events, problems, verdicts)
	}
	m := &metrics{events: events, problems: problems, verdicts: map[whisk.Decision]prometheus.Counter{}}
	// All three from the start, so that a rate can be taken before the first of
	// a kind.
	for _, d := range []whisk.Decision{whisk.Matched, whisk.Filtered, whisk.Off} {
		m.verdicts[d] = verdicts.WithLabelValues(string(d))
	}
	return m
}

// count counts a verdict and returns the number of its matches.
func (m *metrics) count(v *whisk.Verdict) int {
	m.events.Inc()
	if v.Problem != "" {
		m.problems.Inc()
	}
	n := map[whisk.Decision]int{}
	for i := range v.Rules {
		n[v.Rules[i].Decision]++
	}
	for d, k := range n {
		m.verdicts[d].Add(float64(k))
	}
	return n[whisk.Matched]
}
