package store_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/store"
	"github.com/millrace/millrace/internal/whisk"
)

// fill puts n actions of ordinary size, each in a package and changed once,
// into a hundred namespaces.
func fill(b *testing.B, s *store.Store, n int) {
	b.Helper()
	e := s.Entities()
	for first := 0; first < n; first += 500 {
		var ops, again []store.Op
		for i := first; i < min(first+500, n); i++ {
			a := whisk.Action{
				Meta:       whisk.Meta{Name: benchName(i), Version: "0.0.1", Annotations: whisk.Params{}.Set("exec", `"python:3"`).Set("provide-api-key", "false")},
				Parameters: whisk.Params{}.Set("endpoint", `"https://example.org/some/where"`).Set("retries", "3"),
				Exec:       whisk.Exec{Kind: "python:3", Digest: fmt.Sprintf("%064d", i)}, Limits: whisk.StdLimits(),
			}
			ops = append(ops, e.Actions.PutOp(a.Name, a, 0))
		}
		if err := s.Apply(b.Context(), ops...); err != nil {
			b.Fatal(err)
		}
		for i := first; i < min(first+500, n); i++ {
			a, rev, err := e.Actions.Get(benchName(i))
			if err != nil {
				b.Fatal(err)
			}
			again = append(again, e.Actions.PutOp(a.Name, a, rev))
		}
		if err := s.Apply(b.Context(), again...); err != nil {
			b.Fatal(err)
		}
	}
	for ns := range 100 {
		p := whisk.Package{Meta: whisk.Meta{Name: whisk.Name{Namespace: fmt.Sprint("ns", ns), Entity: "p"}}, Parameters: whisk.Params{}.Set("p", "1")}
		if err := s.Apply(b.Context(), e.Packages.PutOp(p.Name, p, 0)); err != nil {
			b.Fatal(err)
		}
	}
}

func benchName(i int) whisk.Name {
	return whisk.Name{Namespace: fmt.Sprint("ns", i%100), Package: "p", Entity: fmt.Sprint("action", i)}
}

// BenchmarkOpen is reading 10,000 entities at start.
func BenchmarkOpen(b *testing.B) {
	p := openBusFor(b, b.TempDir(), bus.Process)
	fill(b, openStore(b, p, false), 10_000)
	for b.Loop() {
		if n := len(openStore(b, p, false).Entities().Actions.List("ns1")); n != 100 {
			b.Fatalf("%d actions, want 100", n)
		}
	}
}

// BenchmarkReads are the reads of the road and of lists, among 10,000 entities.
func BenchmarkReads(b *testing.B) {
	p := openBusFor(b, b.TempDir(), bus.Process)
	s := openStore(b, p, false)
	fill(b, s, 10_000)
	b.Run("get", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, _, err := s.Entities().Actions.Get(benchName(i % 10_000)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("resolve", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, err := s.Resolve(benchName(i % 10_000)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("list100", func(b *testing.B) {
		for b.Loop() {
			s.Entities().Actions.List("ns1")
		}
	})
}

// BenchmarkPut is a durable write, alone and among 64.
func BenchmarkPut(b *testing.B) {
	p := openBus(b, b.TempDir())
	s := openStore(b, p, true)
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprint("writers", writers), func(b *testing.B) {
			b.SetParallelism(max(1, writers/2))
			var n atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				name := whisk.Name{Namespace: fmt.Sprint(b.N, "w", writers), Entity: fmt.Sprint(n.Add(1))}
				var rev whisk.Revision
				for pb.Next() {
					var err error
					if rev, err = s.Entities().Triggers.Put(b.Context(), name, whisk.Trigger{}, rev); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
