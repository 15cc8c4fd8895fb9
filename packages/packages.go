// Package packages is the goods that come with Millrace: a folder for each
// built-in package, with its manifest, its README and samples of its events.
// Package catalog reads them; what lies behind their actions is Go code of the
// feed rooms.
package packages

import (
	"embed"
	"io/fs"
)

//go:embed */manifest.yaml */README.md */samples/*.json
var files embed.FS

// FS returns the folders of the built-in packages.
func FS() fs.FS { return files }
