package journal

// CopyTree copies a live store, for the tests outside of the package.
var CopyTree = copyTree
