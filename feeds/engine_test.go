package feeds_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/millrace/millrace/feeds"
	"github.com/millrace/millrace/feeds/cron"
	"github.com/millrace/millrace/feeds/feedtest"
	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/store"
	"github.com/millrace/millrace/internal/whisk"
)

// A schedule on the real bus and store, across a stop of both: each due
// time is an event, once.
func TestAlarmOnTheRealStore(t *testing.T) {
	dir := t.TempDir()
	triggers := &feedtest.Triggers{}
	triggers.Add(trig, "1")
	var last whisk.Event
	for round := range 2 {
		func() {
			log := slog.New(slog.DiscardHandler)
			b, err := bus.Open(t.Context(), bus.Options{Dir: dir, Log: log})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			s, err := store.Open(t.Context(), b, log)
			if err != nil {
				t.Fatal(err)
			}
			states, err := store.NewTable[feeds.State](t.Context(), s, "feeds")
			if err != nil {
				t.Fatal(err)
			}
			sup := feeds.NewSupervisor(feeds.Parts{
				States: states, Sink: b, Triggers: triggers, Keys: feedtest.Keys{goodKey: "guest"},
				Providers: cron.New().Providers(), Log: log,
			})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 3)
			go func() { done <- b.Run(ctx) }()
			go func() { done <- s.Run(ctx) }()
			go func() { done <- sup.Run(ctx) }()
			defer func() {
				cancel()
				for range 3 {
					if err := <-done; err != nil {
						t.Errorf("run: %v", err)
					}
				}
			}()
			<-sup.Ready()
			if round == 0 {
				_, err := sup.Handle(ctx, feeds.Create, feeds.Request{
					Feed: "alarms/alarm", Namespace: "guest", TriggerName: "t", AuthKey: goodKey,
					Params: whisk.Params{}.Set("cron", `"* * * * * *"`).Set("misfire", `"all"`),
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			// Two more events than the archive held before.
			wait, stop := context.WithTimeout(ctx, 20*time.Second)
			defer stop()
			for seen := 0; seen < 2; {
				evs, err := b.ReadEvents(wait, last.Seq+1, 100)
				if err != nil {
					t.Fatal(err)
				}
				for _, ev := range evs {
					if want := last.Time.Add(time.Second); last.Seq > 0 && !ev.Time.Equal(want) {
						t.Fatalf("round %d: event of %s, want %s", round, ev.Time, want)
					}
					last = ev
					seen++
				}
			}
		}()
	}
}
