package rpc

import (
	"context"

	"github.com/echod/echod/daemon/echo"
	echov1 "github.com/echod/echod/gen/echo/v1"
)

// Ledgers is what the daemon's endpoints saw of runs of probes.
type Ledgers interface {
	Ledger(run uint64) (echo.Ledger, error)
}

// LedgerService serves echo.v1.LedgerService.
type LedgerService struct {
	echov1.UnsafeLedgerServiceServer
	ledgers Ledgers
}

// NewLedgerService serves the ledgers of one daemon.
func NewLedgerService(l Ledgers) *LedgerService { return &LedgerService{ledgers: l} }

// GetLedger implements the service.
func (s *LedgerService) GetLedger(_ context.Context, req *echov1.GetLedgerRequest) (*echov1.Ledger, error) {
	run, err := runFromText(req.GetRun())
	if err != nil {
		return nil, badField("run", "%v", err)
	}
	l, err := s.ledgers.Ledger(run)
	if err != nil {
		return nil, err
	}
	return ledgerToProto(run, l), nil
}
