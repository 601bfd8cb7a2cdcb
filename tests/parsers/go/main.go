// Reads requests as Go's servers do, one a line on standard input, and writes what it read, one a line.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"os"
)

type request struct {
	ContentType string `json:"content_type"`
	Body        []byte `json:"body"`
}

type chat struct {
	Model               *string `json:"model"`
	Stream              *bool   `json:"stream"`
	User                *string `json:"user"`
	N                   *int    `json:"n"`
	MaxTokens           *int    `json:"max_tokens"`
	MaxCompletionTokens *int    `json:"max_completion_tokens"`
	StreamOptions       *struct {
		IncludeUsage *bool `json:"include_usage"`
	} `json:"stream_options"`
}

func readForm(boundary string, body []byte) (map[string][]string, error) {
	fields := map[string][]string{}
	parts := multipart.NewReader(bytes.NewReader(body), boundary)
	for {
		part, err := parts.NextPart()
		if err == io.EOF {
			return fields, nil
		}
		if err != nil {
			return nil, err
		}
		value, err := io.ReadAll(part)
		if err != nil {
			return nil, err
		}
		if part.FileName() == "" {
			fields[part.FormName()] = append(fields[part.FormName()], string(value))
		}
	}
}

func read(asked request) (any, error) {
	kind, parameters, err := mime.ParseMediaType(asked.ContentType)
	if err != nil {
		return nil, err
	}
	if kind == "multipart/form-data" {
		return readForm(parameters["boundary"], asked.Body)
	}
	var fields chat
	err = json.Unmarshal(asked.Body, &fields)
	return fields, err
}

func main() {
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var asked request
		if err := json.Unmarshal(line, &asked); err != nil {
			panic(err)
		}
		answer := map[string]any{}
		if fields, err := read(asked); err != nil {
			answer["go"] = map[string]any{"error": err.Error()}
		} else {
			answer["go"] = map[string]any{"fields": fields}
		}
		written, err := json.Marshal(answer)
		if err != nil {
			panic(err)
		}
		fmt.Println(string(written))
	}
}
