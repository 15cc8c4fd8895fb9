package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/whisk"
)

// MaxBatch is how many writes one Apply takes: what the server takes as one.
const MaxBatch = 1000

// Headers of atomic batches.
const (
	headerBatch    = "Nats-Batch-Id"
	headerBatchSeq = "Nats-Batch-Sequence"
	headerCommit   = "Nats-Batch-Commit"
)

// publishBatch publishes msgs to one stream, all or none, and returns the
// sequence of the last; those of the others lead up to it without a gap. It
// returns Conflict when one of them is not as expected.
func publishBatch(ctx context.Context, nc *nats.Conn, msgs []*nats.Msg) (last uint64, err error) {
	// The server keeps the messages of one ID apart until the commit.
	id := whisk.NewID(time.Now())
	for i, m := range msgs {
		m.Header.Set(headerBatch, id)
		m.Header.Set(headerBatchSeq, strconv.Itoa(i+1))
		if i < len(msgs)-1 {
			// Whatever is wrong with it, the answer to the last one tells.
			if err := nc.PublishMsg(m); err != nil {
				return 0, err
			}
		}
	}
	commit := msgs[len(msgs)-1]
	commit.Header.Set(headerCommit, "1")
	answer, err := nc.RequestMsgWithContext(ctx, commit)
	if err != nil {
		return 0, whisk.E(whisk.Unavailable, "publish batch", err)
	}
	var ack struct {
		Error *jetstream.APIError `json:"error"`
		Seq   uint64              `json:"seq"`
		Count int                 `json:"count"`
	}
	if err := json.Unmarshal(answer.Data, &ack); err != nil {
		return 0, fmt.Errorf("read the answer to a batch: %w", err)
	}
	if ack.Error != nil {
		switch ack.Error.ErrorCode {
		case jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant:
			return 0, whisk.E(whisk.Conflict, "publish batch", ack.Error)
		}
		return 0, ack.Error
	}
	if ack.Count != len(msgs) {
		return 0, errors.New("the server did not take the messages as one batch")
	}
	return ack.Seq, nil
}
