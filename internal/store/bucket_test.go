package store

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"reflect"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/internal/bus"
	"github.com/millrace/millrace/internal/whisk"
)

func testBus(t *testing.T) *bus.Bus {
	t.Helper()
	b, err := bus.Open(t.Context(), bus.Options{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func testTable[T any](t *testing.T, b *bus.Bus, bucket string) *Table[T] {
	t.Helper()
	s, err := Open(t.Context(), b, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	table, err := NewTable[T](t.Context(), s, bucket)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func streamState(t *testing.T, b *bus.Bus, stream string) jetstream.StreamState {
	t.Helper()
	s, err := b.JetStream().Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State
}

func TestPurge(t *testing.T) {
	ctx := t.Context()
	b := testBus(t)
	one, two := testTable[int](t, b, "numbers"), testTable[int](t, b, "numbers")
	x, y, z := whisk.Name{Namespace: "a", Entity: "x"}, whisk.Name{Namespace: "a", Entity: "y"}, whisk.Name{Namespace: "a", Entity: "z"}
	put := func(table *Table[int], n whisk.Name, v int, prev whisk.Revision) whisk.Revision {
		t.Helper()
		rev, err := table.Put(ctx, n, v, prev)
		if err != nil {
			t.Fatalf("put %v: %v", n, err)
		}
		return rev
	}
	for _, n := range []whisk.Name{x, y} {
		rev := put(one, n, 2, put(one, n, 1, 0))
		if err := one.Delete(ctx, n, rev); err != nil {
			t.Fatal(err)
		}
	}
	put(one, z, 1, 0)
	if err := two.bucket.load(ctx); err != nil { // it has the marks of both now
		t.Fatal(err)
	}
	if err := one.bucket.purge(ctx, time.Now().Add(-time.Minute)); err != nil {
		t.Fatal(err)
	}
	if n := streamState(t, b, "KV_numbers").Msgs; n != 7 {
		t.Errorf("%d messages after a purge of what is old, want all 7", n)
	}
	put(one, x, 3, 0) // two does not know
	if err := two.bucket.purge(ctx, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if n := streamState(t, b, "KV_numbers").Msgs; n != 2 {
		t.Errorf("%d messages after the purge, want those of x and z", n)
	}
	if left := two.bucket.marks(time.Now().Add(time.Minute)); len(left) != 0 {
		t.Errorf("marks left: %v", left)
	}
	// one still has the mark of y, which the stream has not.
	put(one, y, 4, 0)
	if err := two.bucket.load(ctx); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[whisk.Name]int{x: 3, y: 4, z: 1} {
		if v, _, err := two.Get(n); err != nil || v != want {
			t.Errorf("%v = %d, %v, want %d", n, v, err, want)
		}
	}
}

func TestForeignValues(t *testing.T) {
	ctx := t.Context()
	b := testBus(t)
	table := testTable[map[string]int](t, b, "numbers")
	n := whisk.Name{Namespace: "a", Entity: "x"}
	for _, subject := range []string{"$KV.numbers.a._.x", "$KV.numbers.short", "$KV.numbers.a.b%.c"} {
		if _, err := b.JetStream().Publish(ctx, subject, []byte("not JSON")); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.bucket.load(ctx); err != nil {
		t.Fatal(err)
	}
	_, rev, err := table.Get(n)
	if !errors.Is(err, whisk.Internal) || !errors.Is(err, whisk.ErrCorrupt) || rev != 1 {
		t.Errorf("Get = %d, %v, want the revision 1 and that it can't be read", rev, err)
	}
	if l := table.List(""); len(l) != 0 {
		t.Errorf("List = %v, want nothing", l)
	}
	if _, err := table.Put(ctx, n, map[string]int{"a": 1}, rev); err != nil {
		t.Errorf("put over what can't be read: %v", err)
	}
	if v, _, err := table.Get(n); err != nil || v["a"] != 1 {
		t.Errorf("Get = %v, %v, want what was put", v, err)
	}
}

// TestKVCompatible reads and writes a table with the client's own bucket type.
func TestKVCompatible(t *testing.T) {
	ctx := t.Context()
	b := testBus(t)
	table := testTable[string](t, b, "words")
	n := whisk.Name{Namespace: "whisk.system", Entity: "a b"}
	rev, err := table.Put(ctx, n, "one", 0)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := b.JetStream().KeyValue(ctx, "words")
	if err != nil {
		t.Fatal(err)
	}
	const key = "whisk=2Esystem._.a=20b"
	e, err := kv.Get(ctx, key)
	if err != nil || string(e.Value()) != `"one"` || e.Revision() != uint64(rev) {
		t.Fatalf("Get(%s) = %v, %v, want \"one\" at %d", key, e, err, rev)
	}
	if _, err := kv.Update(ctx, key, []byte(`"two"`), uint64(rev)); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Put(ctx, n, "three", rev); !errors.Is(err, whisk.Conflict) {
		t.Errorf("put over another's write: error = %v, want Conflict", err)
	}
	if err := table.bucket.load(ctx); err != nil {
		t.Fatal(err)
	}
	v, rev, err := table.Get(n)
	if err != nil || v != "two" {
		t.Errorf("Get = %q, %v, want the other's two", v, err)
	}
	if err := table.Delete(ctx, n, rev); err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Get(ctx, key); !errors.Is(err, jetstream.ErrKeyNotFound) {
		t.Errorf("Get after delete: error = %v, want ErrKeyNotFound", err)
	}
}

// TestForeignBucket opens a bucket that was made by the nats tools.
func TestForeignBucket(t *testing.T) {
	b := testBus(t)
	if _, err := b.JetStream().CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "theirs"}); err != nil {
		t.Fatal(err)
	}
	table := testTable[int](t, b, "theirs")
	x, y := whisk.Name{Namespace: "a", Entity: "x"}, whisk.Name{Namespace: "a", Entity: "y"}
	if _, err := apply(t.Context(), table.PutOp(x, 1, 0), table.PutOp(y, 2, 0)); err != nil {
		t.Errorf("apply to it: %v", err)
	}
}

func TestBucketUnavailable(t *testing.T) {
	b := testBus(t)
	s, err := Open(t.Context(), b, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := NewTable[int](over, s, "late"); err == nil {
		t.Error("a table was opened although the context is over")
	}
	if _, err := NewTable[int](t.Context(), s, "late"); err != nil {
		t.Errorf("second try: %v", err)
	}
}

func FuzzSubject(f *testing.F) {
	f.Add("guest", "", "hello")
	f.Add("whisk.system", "a b", "@.&-")
	f.Add("", "_", "=5F")
	b := newBucket(nil, "b", nil, nil, slog.New(slog.DiscardHandler))
	f.Fuzz(func(t *testing.T, namespace, pkg, entity string) {
		n := whisk.Name{Namespace: namespace, Package: pkg, Entity: entity}
		if got, err := b.parse(b.subject(n)); err != nil || got != n {
			t.Errorf("parse(%q) = %+v, %v, want %+v", b.subject(n), got, err, n)
		}
	})
}

func TestDeepCopy(t *testing.T) {
	type inner struct {
		Raw   json.RawMessage
		When  time.Time
		Names []whisk.Name
	}
	type value struct {
		Map   map[string][]int
		Ptr   *inner
		Any   any
		List  []inner
		Array [2][]byte
		Nil   []int
		None  map[string]int
		Text  string
	}
	make1 := func() value {
		in := func() inner {
			return inner{json.RawMessage(`{"a":1}`), time.UnixMilli(5).UTC(), []whisk.Name{{Entity: "x"}}}
		}
		p := in()
		return value{
			Map: map[string][]int{"a": {1, 2}}, Ptr: &p, Any: map[string]any{"k": []any{1, "s"}}, List: []inner{in(), in()},
			Array: [2][]byte{[]byte("a"), nil}, Text: "t",
		}
	}
	v, want := make1(), make1()
	c := deepCopy(v)
	if !reflect.DeepEqual(c, want) {
		t.Fatalf("copy = %+v, want %+v", c, want)
	}
	c.Map["a"][0], c.Map["b"] = 9, nil
	c.Ptr.Raw[0], c.Ptr.Names[0].Entity = '!', "y"
	c.Any.(map[string]any)["k"].([]any)[0] = 9
	c.List[1].Raw[0] = '!'
	c.Array[0][0] = '!'
	if !reflect.DeepEqual(v, want) {
		t.Errorf("changing the copy made the original %+v, want %+v", v, want)
	}
}
