package server

import "context"

func (s *Server) installPackages(context.Context, *road) error { return nil }
