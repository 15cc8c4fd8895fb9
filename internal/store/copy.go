package store

import "reflect"

// deepCopy returns a copy of v that shares nothing changeable with it, but for
// what unexported fields refer to.
func deepCopy[T any](v T) T {
	own(reflect.ValueOf(&v).Elem())
	return v
}

// own replaces everything that v, a shallow copy, refers to by copies.
func own(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() {
				own(f)
			}
		}
	case reflect.Array:
		for i := range v.Len() {
			own(v.Index(i))
		}
	case reflect.Slice:
		if v.IsNil() {
			return
		}
		out := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(out, v)
		// Bytes and numbers are copied with the slice: most of an entity is
		// that.
		if refers(v.Type().Elem().Kind()) {
			for i := range out.Len() {
				own(out.Index(i))
			}
		}
		v.Set(out)
	case reflect.Map:
		if v.IsNil() {
			return
		}
		out := reflect.MakeMapWithSize(v.Type(), v.Len())
		for it := v.MapRange(); it.Next(); {
			e := reflect.New(v.Type().Elem()).Elem()
			e.Set(it.Value())
			own(e)
			out.SetMapIndex(it.Key(), e)
		}
		v.Set(out)
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return
		}
		e := reflect.New(v.Elem().Type())
		e.Elem().Set(v.Elem())
		own(e.Elem())
		if v.Kind() == reflect.Interface {
			e = e.Elem()
		}
		v.Set(e)
	}
}

// refers reports whether values of a kind may refer to something.
func refers(k reflect.Kind) bool { return k >= reflect.Array && k != reflect.String }
