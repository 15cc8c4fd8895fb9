package journal

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/internal/whisk"
)

// metrics counts what the journal does. They exist before they are registered,
// so that the replay can count, and are registered only with a journal that is
// open: a failed Open leaves nothing in the registry.
type metrics struct {
	entries  map[whisk.EntryKind]prometheus.Counter
	messages prometheus.Counter
	bytes    prometheus.Counter
	replayed prometheus.Gauge // by the start

	replayedBytes prometheus.Gauge
	carries       prometheus.Counter
	waits         prometheus.Counter
	deadLost      prometheus.Counter
	rebuilds      prometheus.Counter

	byKind *prometheus.CounterVec
}

func newMetrics() *metrics {
	count := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "millrace", Subsystem: "journal", Name: name, Help: help})
	}
	entries := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "millrace", Subsystem: "journal", Name: "entries_total", Help: "Entries written, by kind.",
	}, []string{"kind"})
	m := &metrics{
		entries:  map[whisk.EntryKind]prometheus.Counter{},
		messages: count("messages_total", "Messages written to JOURNAL and CALLS."),
		bytes:    count("bytes_total", "Bytes of entries written to JOURNAL."),
		carries:  count("carries_total", "Matches carried to the end of the journal."),
		waits:    count("waits_total", "Times that verdicts waited because too much was undone."),
		deadLost: count("dead_letters_lost_total", "Dead letters pushed out of their full stream."),
		rebuilds: count("index_rebuilds_total", "Times that the index was made anew."),
	}
	for _, k := range kinds[1:] {
		// Looked up once: the writer counts under load.
		m.entries[k] = entries.WithLabelValues(string(k))
	}
	m.replayed = prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "millrace", Subsystem: "journal", Name: "replayed_messages", Help: "Messages that the start has read to find out what is undone.",
	})
	m.replayedBytes = prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "millrace", Subsystem: "journal", Name: "replayed_bytes", Help: "Bytes of these messages.",
	})
	m.byKind = entries
	return m
}

// register shows the metrics of an open journal.
func (m *metrics) register(r prometheus.Registerer, j *Journal) {
	if r == nil {
		return
	}
	gauge := func(name, help string, f func() float64) prometheus.GaugeFunc {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "millrace", Subsystem: "journal", Name: name, Help: help}, f)
	}
	// A scrape takes the journal's lock for as long as it takes to add up.
	locked := func(f func() int64) func() float64 {
		return func() float64 {
			j.mu.Lock()
			defer j.mu.Unlock()
			return float64(f())
		}
	}
	r.MustRegister(
		m.byKind, m.messages, m.bytes, m.replayed, m.replayedBytes, m.carries, m.waits, m.deadLost, m.rebuilds,
		gauge("undone", "Matches and invocations that are not done.", locked(func() int64 { return int64(j.ledger.undone) })),
		gauge("undone_bytes", "Bytes of their bodies, about.", locked(func() int64 { return j.ledger.bytes })),
		gauge("held_bytes", "Bytes of the journal that a start would read.", locked(j.held)),
		gauge("unindexed", "Entries in memory that the index has not reached.", func() float64 { return float64(j.index.lag()) }),
	)
}

// wrote counts a message, and by kind its entries if it is one of JOURNAL: those
// of CALLS are all records.
func (m *metrics) wrote(stream int, batch []part) {
	m.messages.Inc()
	if stream != inJournal {
		return
	}
	for i := range batch {
		for k := range batch[i].entries {
			m.entries[batch[i].entries[k].Kind].Inc()
		}
	}
}
