// A chat as the README of the Centrifuge library writes one, on its memory broker: clients
// subscribe to a channel and publish into it.
//
// No history, presence or logging. -write-delay gathers a client's messages for a time, and -frame
// says how many may share a frame.
package main

import (
	"context"
	"flag"
	"log"
	"net/http"
	"time"

	"github.com/centrifugal/centrifuge"
)

func main() {
	address := flag.String("address", "127.0.0.1:8000", "where to listen")
	delay := flag.Duration("write-delay", 0, "gather messages for this long before a write")
	frame := flag.Int("frame", 16, "messages in a frame at most; -1: all that wait")
	flag.Parse()

	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		log.Fatal(err)
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{
			Credentials:        &centrifuge.Credentials{},
			WriteDelay:         *delay,
			WriteWithTimer:     *delay > 0,
			MaxMessagesInFrame: *frame,
		}, nil
	})
	node.OnConnect(func(client *centrifuge.Client) {
		client.OnSubscribe(func(_ centrifuge.SubscribeEvent, answer centrifuge.SubscribeCallback) {
			answer(centrifuge.SubscribeReply{}, nil)
		})
		client.OnPublish(func(_ centrifuge.PublishEvent, answer centrifuge.PublishCallback) {
			answer(centrifuge.PublishReply{}, nil)
		})
	})
	if err := node.Run(); err != nil {
		log.Fatal(err)
	}
	options := centrifuge.WebsocketConfig{UseWriteBufferPool: true, WriteTimeout: 10 * time.Second}
	http.Handle("/connection/websocket", centrifuge.NewWebsocketHandler(node, options))
	log.Fatal(http.ListenAndServe(*address, nil))
}
