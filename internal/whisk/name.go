package whisk

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Name is the full name of an entity: /namespace[/package]/entity. Package is
// empty outside packages. The zero value names nothing. In JSON it is a string,
// as String writes it; the zero value is "".
type Name struct{ Namespace, Package, Entity string }

// Texts of refused names, as OpenWhisk words them.
var (
	errSegment   = errors.New("The name of the entity contains illegal characters.") //nolint:staticcheck // upstream's wording
	errNamespace = errors.New("The namespace contains illegal characters.")          //nolint:staticcheck // upstream's wording
	errFullName  = errors.New("requirement failed: The fully qualified name of the entity must contain at least the namespace and the name of the entity.")
)

// CheckSegment returns nil when s may be the name of an entity or a package,
// else Invalid with OpenWhisk's text.
func CheckSegment(s string) error {
	if n := utf8.RuneCountInString(s); n > MaxName {
		return E(Invalid, "check name", fmt.Errorf("Name segement longer than allowed: %d > %d.", n, MaxName)) //nolint:staticcheck // upstream's spelling
	}
	if !isSegment(s) {
		return E(Invalid, "check name", errSegment)
	}
	return nil
}

// CheckNamespace is CheckSegment for namespaces.
func CheckNamespace(s string) error {
	if n := utf8.RuneCountInString(s); n > MaxName {
		return E(Invalid, "check namespace", fmt.Errorf("Namespace longer than allowed: %d > %d.", n, MaxName)) //nolint:staticcheck // upstream's wording
	}
	if !isSegment(s) {
		return E(Invalid, "check namespace", errNamespace)
	}
	return nil
}

// isSegment reports whether s is what OpenWhisk's EntityName matches,
// ^[\w]([\w@ .&-]*[\w@.&-])?$: it begins with a word character and does not end
// with a space. It is asked of every request.
func isSegment(s string) bool {
	if s == "" || !isWord(s[0]) || s[len(s)-1] == ' ' {
		return false
	}
	for i := range len(s) {
		if !isWord(s[i]) && strings.IndexByte("@ .&-", s[i]) < 0 {
			return false
		}
	}
	return true
}

func isWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
}

// ParseName reads a reference as clients write it: [/]namespace[/package]/name,
// with "_" for own. A bare name or a two-part one without a leading slash is
// refused, as OpenWhisk refuses it in bodies; see ParseRelative. It returns
// Invalid.
func ParseName(s, own string) (Name, error) {
	parts := strings.Split(strings.TrimPrefix(s, "/"), "/")
	if len(parts) < 2 || len(parts) > 3 {
		return Name{}, E(Invalid, "parse name", errFullName)
	}
	n := Name{Namespace: parts[0], Entity: parts[len(parts)-1]}
	if n.Namespace == Own {
		n.Namespace = own
	}
	if err := CheckNamespace(n.Namespace); err != nil {
		return Name{}, err
	}
	if len(parts) == 3 {
		n.Package = parts[1]
		if err := CheckSegment(n.Package); err != nil {
			return Name{}, err
		}
	}
	if err := CheckSegment(n.Entity); err != nil {
		return Name{}, err
	}
	return n, nil
}

// ParseRelative reads a name as a person types it: name, package/name, or a
// full name with a leading slash. What is not said is taken from own.
func ParseRelative(s, own string) (Name, error) {
	if strings.HasPrefix(s, "/") {
		return ParseName(s, own)
	}
	return ParseName("/"+own+"/"+s, own)
}

// String returns the full name with its leading slash, as in /guest/pkg/hello.
func (n Name) String() string { return "/" + n.Path() }

// Path returns the full name without its leading slash.
func (n Name) Path() string {
	if n.Package == "" {
		return n.Namespace + "/" + n.Entity
	}
	return n.Namespace + "/" + n.Package + "/" + n.Entity
}

// Dir returns what OpenWhisk answers as an entity's namespace: the namespace,
// with the package after a slash.
func (n Name) Dir() string {
	if n.Package == "" {
		return n.Namespace
	}
	return n.Namespace + "/" + n.Package
}

// Local returns the name as its own namespace calls it: name or package/name.
func (n Name) Local() string {
	if n.Package == "" {
		return n.Entity
	}
	return n.Package + "/" + n.Entity
}

// IsZero reports whether n names nothing.
func (n Name) IsZero() bool { return n == Name{} }

// MarshalText writes n as String does, and nothing for the zero value.
func (n Name) MarshalText() ([]byte, error) {
	if n.IsZero() {
		return []byte{}, nil
	}
	return []byte(n.String()), nil
}

// UnmarshalText reads what MarshalText wrote. It checks the number of parts
// only: a name from outside is read with ParseName.
func (n *Name) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*n = Name{}
		return nil
	}
	parts := strings.Split(strings.TrimPrefix(string(b), "/"), "/")
	switch len(parts) {
	case 2:
		*n = Name{Namespace: parts[0], Entity: parts[1]}
	case 3:
		*n = Name{parts[0], parts[1], parts[2]}
	default:
		return E(Invalid, "read name", errFullName)
	}
	return nil
}
