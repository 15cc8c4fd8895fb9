package journal

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// BenchmarkIndex is what the index costs per row, in batches as the indexer
// writes them: half records, half verdicts, of 20 names.
func BenchmarkIndex(b *testing.B) {
	db, err := openDatabase(b.Context(), filepath.Join(b.TempDir(), "index.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer db.drop() //nolint:errcheck // it is thrown away
	const batch = 2000
	var u0, u1 syscall.Rusage
	seq := uint64(0)
	syscall.Getrusage(syscall.RUSAGE_SELF, &u0) //nolint:errcheck // it can't fail for the process itself
	for b.Loop() {
		rows := make([]row, 0, batch)
		for n := range batch {
			if n%500 == 0 {
				seq++
			}
			when := epoch.Add(time.Duration(seq) * time.Millisecond)
			r := row{
				place: at(inJournal, seq, n%500), id: whisk.DeriveID(when, strconv.Itoa(n)), space: "guest",
				name: fmt.Sprint("a", n%20), start: when.UnixMilli(),
			}
			if n%2 == 0 {
				r.class, r.event = classFired, seq<<10|uint64(n)
			}
			rows = append(rows, r)
		}
		if err := db.write(b.Context(), rows, [streams]position{{seq, 1}}, (*sql.Tx).Commit); err != nil {
			b.Fatal(err)
		}
	}
	syscall.Getrusage(syscall.RUSAGE_SELF, &u1) //nolint:errcheck // as above
	spent := u1.Utime.Nano() + u1.Stime.Nano() - u0.Utime.Nano() - u0.Stime.Nano()
	b.ReportMetric(float64(spent)/1000/float64(b.N)/batch, "cpu-µs/row")
}
