// Reading all of a stream once.
package main

import (
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

func (s session) replay(cmd command) (answer, error) {
	if cmd.Cold {
		if err := dropCaches(); err != nil {
			return nil, err
		}
	}
	found, err := s.measured(cmd.Size, func() (int, error) {
		switch cmd.Form {
		case "ordered":
			return s.ordered(cmd)
		case "direct":
			return s.direct(cmd)
		}
		return 0, fmt.Errorf("unknown form %q", cmd.Form)
	})
	if err != nil {
		return nil, err
	}
	if found["events"] != cmd.Events {
		return nil, fmt.Errorf("%v of %d events were read", found["events"], cmd.Events)
	}
	found["form"], found["batch"], found["cold"] = cmd.Form, cmd.Batch, cmd.Cold
	return found, nil
}

// An ordered consumer: the library asks for more before it has handed over what came.
func (s session) ordered(cmd command) (int, error) {
	consumer, err := s.js.OrderedConsumer(s.ctx, cmd.Stream, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return 0, err
	}
	done := make(chan struct{})
	read := 0
	consuming, err := consumer.Consume(func(jetstream.Msg) {
		if read++; read == cmd.Events {
			close(done)
		}
	}, jetstream.PullMaxMessages(cmd.Batch))
	if err != nil {
		return 0, err
	}
	defer consuming.Stop()
	select {
	case <-done:
		return read, nil
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	}
}

// Batches of direct gets, one after the other.
func (s session) direct(cmd command) (int, error) {
	read := 0
	for read < cmd.Events {
		messages, err := jetstreamext.GetBatch(s.ctx, s.js, cmd.Stream, cmd.Batch,
			jetstreamext.GetBatchSeq(uint64(read)+1))
		if err != nil {
			return 0, err
		}
		before := read
		for _, err := range messages {
			if err != nil {
				return 0, err
			}
			read++
		}
		if read == before {
			return 0, fmt.Errorf("nothing came behind event %d", read)
		}
	}
	return read, nil
}
