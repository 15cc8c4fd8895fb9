package server

import (
	"context"
	"errors"
)

func (s *Server) dockerDriver(context.Context) (*driver, error) {
	return nil, errors.New("no docker driver")
}
