package auth

import (
	"container/heap"
	"crypto/sha256"
	"crypto/subtle"
	"sync"
	"time"
)

// Mint returns a new key, uuid:key, that stands for id until a deadline. It is
// in memory only: the end of this process is its end as well. With id.Origin,
// what is asked for with the key is known to come from there.
func (k *Keys) Mint(id Identity, until time.Time) (authkey string) {
	uuid, key := newKey()
	id.UUID, id.Expires = uuid, until
	k.minted.add(&mintedKey{hash: sha256.Sum256([]byte(key)), id: id})
	return uuid + ":" + key
}

// minted holds the live keys that were minted. Dead ones are removed when new
// ones come, so there are never more than were live at once.
type minted struct {
	mu    sync.RWMutex
	keys  map[string]*mintedKey
	queue deadlines
}

type mintedKey struct {
	hash [sha256.Size]byte
	id   Identity
}

func (m *minted) add(k *mintedKey) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.queue) > 0 && !now.Before(m.queue[0].id.Expires) {
		delete(m.keys, heap.Pop(&m.queue).(*mintedKey).id.UUID)
	}
	m.keys[k.id.UUID] = k
	heap.Push(&m.queue, k)
}

func (m *minted) find(uuid string, hash [sha256.Size]byte) (Identity, bool) {
	m.mu.RLock()
	k := m.keys[uuid]
	m.mu.RUnlock()
	if k == nil || subtle.ConstantTimeCompare(k.hash[:], hash[:]) != 1 || !time.Now().Before(k.id.Expires) {
		return Identity{}, false
	}
	return k.id, true
}

// deadlines is a heap of minted keys, the one that dies first on top.
type deadlines []*mintedKey

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].id.Expires.Before(d[j].id.Expires) }
func (d deadlines) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *deadlines) Push(x any)        { *d = append(*d, x.(*mintedKey)) }

func (d *deadlines) Pop() any {
	last := len(*d) - 1
	k := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	return k
}
