// Asks a protected server from Go, through `server-keys seal`, which seals what leaves this machine:
//
//	server-keys seal --to http://127.0.0.1:8000
//	go run main.go "What does the river keep?"
//
// It needs nothing but the standard library. An SDK takes the same base URL.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"
)

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

func main() {
	log.SetFlags(0)
	base, question := "http://127.0.0.1:8011/v1", "Hello"
	if given := os.Getenv("BASE_URL"); given != "" {
		base = given
	}
	if len(os.Args) > 1 {
		question = os.Args[1]
	}
	if err := ask(base, question); err != nil {
		log.Fatal(err)
	}
}

// ask prints the words of the answer as they come.
func ask(base, question string) error {
	body, err := json.Marshal(map[string]any{
		"model":    "toy-rambler",
		"stream":   true,
		"messages": []message{{Role: "user", Content: question}},
	})
	if err != nil {
		return err
	}
	response, err := http.Post(base+"/chat/completions", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the server answered %s", response.Status)
	}
	events := bufio.NewScanner(response.Body)
	for events.Scan() {
		data := strings.TrimPrefix(events.Text(), "data: ")
		if data == "" || data == "[DONE]" {
			continue
		}
		var event struct {
			Choices []struct{ Delta message }
		}
		if err := json.Unmarshal([]byte(data), &event); err != nil {
			return err
		}
		for _, choice := range event.Choices {
			fmt.Print(choice.Delta.Content)
		}
	}
	return events.Err()
}
