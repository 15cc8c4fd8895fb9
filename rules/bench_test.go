package rules

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// BenchmarkJudge judges an event of about 700 bytes by rules with two exact
// fields each, of which one in a hundred matches, or by ones without a filter.
func BenchmarkJudge(b *testing.B) {
	payload := `{"pad":{"text":"` + strings.Repeat("some text ", 50) + `","list":[1,2,3,{"x":[true,null]}]},"detail":{"state":"s0","code":7,"who":"me"},"region":"eu"}`
	ev := event(payload)
	run := func(n int, annotations func(i int) string) func(b *testing.B) {
		return func(b *testing.B) {
			var entries []Entry
			for i := range n {
				entries = append(entries, rule(fmt.Sprintf("r%03d", i), annotations(i)))
			}
			table := NewTable([]whisk.Trigger{trigger("t", "1")}, entries)
			at := time.Now()
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if v := table.Judge(ev, at); len(v.Rules) != n {
					b.Fatal(v)
				}
			}
		}
	}
	for _, n := range []int{1, 100, 500} {
		b.Run(fmt.Sprintf("filtered/rules=%d", n), run(n, func(i int) string {
			return filter(fmt.Sprintf(`{"detail":{"state":["s%d"],"code":[7]}}`, i%100))
		}))
	}
	b.Run("unfiltered/rules=1", run(1, func(int) string { return "" }))
}

func BenchmarkNewTable(b *testing.B) {
	var triggers []whisk.Trigger
	var entries []Entry
	for i := range 1000 {
		tr := trigger(fmt.Sprintf("t%d", i), "1")
		r := rule(fmt.Sprintf("r%d", i), filter(`{"detail":{"state":["on"],"code":[7]}}`))
		r.Rule.Trigger = tr.Name
		triggers, entries = append(triggers, tr), append(entries, r)
	}
	for range b.N {
		NewTable(triggers, entries)
	}
}
