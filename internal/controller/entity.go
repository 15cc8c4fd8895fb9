package controller

import (
	"regexp"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// content is what the body of a PUT says of an entity of any kind. What it does
// not say is nil. nil and empty differ: an update leaves alone what the body
// does not mention, and empties what it gives as empty.
type content struct {
	members
	version     *string
	publish     *bool
	parameters  *whisk.Params
	annotations *whisk.Params
}

// version is major.minor.patch, not all of them zero.
var version = regexp.MustCompile(`^\d{1,9}\.\d{1,9}\.\d{1,9}$`)

// readContent reads the members that all entities have, and refuses what is
// larger than an entity may be.
func readContent(m members) (content, error) {
	c := content{members: m}
	for name, into := range map[string]any{"version": &c.version, "publish": &c.publish} {
		if err := m.read(name, into); err != nil {
			return c, err
		}
	}
	if v := c.version; v != nil && (!version.MatchString(*v) || strings.Trim(*v, "0.") == "") {
		return c, malformed("bad version, must be of form major.minor.patch with at least one part above zero")
	}
	for name, into := range map[string]**whisk.Params{"parameters": &c.parameters, "annotations": &c.annotations} {
		if err := m.read(name, into); err != nil {
			return c, err
		}
		if *into == nil {
			continue
		}
		if n := (*into).Size(); n > whisk.MaxParams {
			return c, tooLarge(name, int64(n), whisk.MaxParams)
		}
	}
	return c, nil
}

// meta returns what an entity's Meta becomes: old is what it was, zero for a
// new one. Annotations replace those of old when the body has any.
func (c *content) meta(n whisk.Name, old whisk.Meta) whisk.Meta {
	m := old
	m.Name, m.Updated = n, time.Now().UTC()
	if m.Version = whisk.NextVersion(old.Version); c.version != nil {
		m.Version = *c.version
	}
	if c.publish != nil {
		m.Publish = *c.publish
	}
	if c.annotations != nil {
		m.Annotations = *c.annotations
	}
	return m
}

// params returns the entity's parameters: the body's, else the old ones.
func (c *content) params(old whisk.Params) whisk.Params {
	if c.parameters != nil {
		return *c.parameters
	}
	return old
}

// mayPut looks at what Get found under the name that is to be PUT. It returns
// whether there was something, which may then be overwritten, and the error of
// a PUT that may not go on.
func mayPut(err error, overwrite bool) (exists bool, _ error) {
	switch {
	case err == nil && !overwrite:
		return true, refuse(whisk.Conflict, textExists)
	case err == nil:
		return true, nil
	// Any other error, such as another kind of entity under the name, ends the
	// PUT.
	case whisk.KindOf(err) == whisk.NotFound:
		return false, nil
	}
	return false, err
}

// name reads a member that refers to another entity: "/ns/name",
// "/ns/pkg/name" or {"path", "name"}, with "_" for own. It returns false when
// the member is absent or null.
func (m members) name(member, own string) (whisk.Name, bool, error) {
	if !m.has(member) {
		return whisk.Name{}, false, nil
	}
	// Clients send either form; both end in one parser.
	s, ok := m.text(member)
	if !ok {
		var ref members
		if err := m.read(member, &ref); err != nil {
			return whisk.Name{}, false, malformed("fully qualified name malformed!")
		}
		path, ok1 := ref.text("path")
		name, ok2 := ref.text("name")
		if !ok1 || !ok2 {
			return whisk.Name{}, false, malformed("fully qualified name malformed!")
		}
		s = path + "/" + name
	}
	n, err := whisk.ParseName(s, own)
	if err != nil {
		return whisk.Name{}, false, malformed(whisk.Message(err))
	}
	return n, true, nil
}

// metaJSON is how every answer shows an entity's Meta.
type metaJSON struct {
	Namespace   string       `json:"namespace"`
	Name        string       `json:"name"`
	Version     string       `json:"version"`
	Publish     bool         `json:"publish"`
	Annotations whisk.Params `json:"annotations"`
	Updated     int64        `json:"updated"` // milliseconds since 1970
}

// showMeta shows what all entities have.
func showMeta(m *whisk.Meta) metaJSON {
	return metaJSON{m.Name.Dir(), m.Name.Entity, m.Version, m.Publish, m.Annotations, m.Updated.UnixMilli()}
}

// refJSON is how answers refer to an entity.
type refJSON struct {
	Path string `json:"path"`
	Name string `json:"name"`
}

// showRef shows a name with the package on the side of the namespace.
func showRef(n whisk.Name) refJSON { return refJSON{n.Dir(), n.Entity} }
