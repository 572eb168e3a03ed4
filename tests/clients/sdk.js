// Sends and reads events by the CloudEvents SDK for JavaScript, which knows nothing of Weft.
import assert from "node:assert/strict";
import http from "node:http";
import { CloudEvent, HTTP } from "cloudevents";

const base = process.argv[2];
const stream = `${base}/v1/streams/clients%2Fjs/events`;

// Chunked, without a length, as the SDK's users send it.
function post(url, message) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method: "POST", headers: message.headers }, (response) => {
      let text = "";
      response.on("data", (piece) => (text += piece));
      response.on("end", () => resolve({ status: response.statusCode, text }));
    });
    request.on("error", reject);
    request.write(message.body ?? "");
    request.end();
  });
}

const events = [
  new CloudEvent({ id: "1", source: "/js", type: "t", subject: 'a "b" 100% c', data: { n: 1.5 } }),
  new CloudEvent({ id: "2", source: "/js", type: "t", datacontenttype: "text/plain", data: "text" }),
  new CloudEvent({ id: "3", source: "/js", type: "t", name: "caf\u00e9", data: { deep: [[{}]] } }),
];
const written = [HTTP.binary, HTTP.structured, HTTP.binary];
for (const [index, event] of events.entries()) {
  const answer = await post(stream, written[index](event));
  assert.equal(answer.status, 202, answer.text);
  assert.equal(JSON.parse(answer.text)[0].offset, index);
}

const followed = await fetch(`${stream}?from=earliest&to=latest`);
assert.equal(followed.status, 200);
const blocks = (await followed.text()).split("\n\n").filter((block) => block.includes("\ndata: "));
const read = blocks.map((block) => {
  const data = block.split("\n").find((line) => line.startsWith("data: ")).slice(6);
  const headers = { "content-type": "application/cloudevents+json; charset=utf-8" };
  return HTTP.toEvent({ headers, body: data });
});
assert.equal(read.length, events.length);
for (const [index, event] of events.entries()) {
  for (const name of ["id", "source", "type", "subject", "datacontenttype", "name"]) {
    if (event[name] !== undefined) assert.equal(read[index][name], event[name], name);
  }
  assert.equal(read[index].time, event.time);
}
assert.deepEqual(read[0].data, { n: 1.5 });
assert.deepEqual(read[2].data, { deep: [[{}]] });
console.log(`JavaScript SDK: ${read.length} events out and in`);
