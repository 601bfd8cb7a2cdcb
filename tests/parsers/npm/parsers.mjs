// Reads requests as Node.js servers do, one a line on standard input, and writes what each parser read, one a line.
import { createInterface } from "node:readline";
import { Readable, Writable } from "node:stream";
import busboy from "busboy";
import express from "express";
import formidable from "formidable";
import multer from "multer";

const middleware = { express: express.json({ limit: "50mb" }), multer: multer().any() };

function requestOf({ content_type, body }) {
  const request = Readable.from([body]);
  request.headers = { "content-type": content_type, "content-length": String(body.length) };
  request.method = "POST";
  return request;
}

function through(name, asked) {
  const request = requestOf(asked);
  return new Promise((resolve, reject) =>
    middleware[name](request, {}, (error) => (error ? reject(error) : resolve(request.body))));
}

function withBusboy(asked) {
  return new Promise((resolve, reject) => {
    const fields = Object.create(null);
    const parser = busboy({ headers: requestOf(asked).headers });
    parser.on("field", (name, value) => (fields[name] ??= []).push(value));
    parser.on("file", (_name, stream) => stream.resume());
    parser.on("error", reject);
    parser.on("close", () => resolve(fields));
    parser.end(asked.body);
  });
}

async function withFormidable(asked) {
  const parser = formidable({ allowEmptyFiles: true, minFileSize: 0, fileWriteStreamHandler: () => new Sink() });
  const [fields] = await parser.parse(requestOf(asked));
  return fields;
}

class Sink extends Writable {
  _write(_chunk, _encoding, done) { done(); }
}

const parsers = {
  form: { multer: (asked) => through("multer", asked), busboy: withBusboy, formidable: withFormidable },
  json: { express: (asked) => through("express", asked) },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { content_type, body } = JSON.parse(line);
  const asked = { content_type, body: Buffer.from(body, "base64") };
  const answer = {};
  for (const [name, parse] of Object.entries(parsers[content_type.startsWith("multipart/") ? "form" : "json"])) {
    try {
      answer[name] = { fields: await parse(asked) };
    } catch (error) {
      answer[name] = { error: String(error) };
    }
  }
  console.log(JSON.stringify(answer));
}
