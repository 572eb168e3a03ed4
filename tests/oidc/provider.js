// A real OpenID provider on loopback, led by lines on its input. Prints its address, then one line
// for each command:
//   token CLIENT RESOURCE   an access token, fetched from its own token endpoint
//   rotate                  signs by new keys, and still publishes the old ones
//   forget                  publishes the newest keys only
// Clients are named after the algorithm of their tokens. Ends when its input does.

import { generateKeyPairSync, randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { Provider } from "oidc-provider";

const CLIENTS = ["RS256", "ES256"];
const SECRET = "a secret of the test and of nobody else";

// Its warnings belong to people, its output to the test.
console.log = console.info = console.warn = (...words) => console.error(...words);

function keys() {
  const made = [
    ["RS256", generateKeyPairSync("rsa", { modulusLength: 2048 })],
    ["ES256", generateKeyPairSync("ec", { namedCurve: "P-256" })],
  ];
  return made.map(([alg, { privateKey }]) => ({
    ...privateKey.export({ format: "jwk" }),
    kid: randomUUID(),
    use: "sig",
    alg,
  }));
}

function provider(url, jwks) {
  return new Provider(url, {
    jwks: { keys: jwks },
    clients: CLIENTS.map((client_id) => ({
      client_id,
      client_secret: SECRET,
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
    })),
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_context, resource, client) => ({
          scope: "",
          audience: resource,
          accessTokenTTL: 600,
          accessTokenFormat: "jwt",
          jwt: { sign: { alg: client.clientId } },
        }),
      },
    },
  }).callback();
}

async function token(client, resource) {
  const response = await fetch(`${url}/token`, {
    method: "POST",
    headers: { authorization: `Basic ${btoa(`${client}:${encodeURIComponent(SECRET)}`)}` },
    body: new URLSearchParams({ grant_type: "client_credentials", resource }),
  });
  const answer = await response.json();
  return answer.access_token ?? JSON.stringify(answer);
}

let newest = keys();
let published = newest;
let answer;
const server = createServer((request, response) => answer(request, response));
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const url = `http://127.0.0.1:${server.address().port}`;
answer = provider(url, published);
process.stdout.write(`${url}\n`);

for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...words] = line.split(" ");
  if (command === "token") {
    process.stdout.write(`${await token(...words)}\n`);
    continue;
  }
  if (command === "rotate") {
    newest = keys();
    // The first that fits signs.
    published = [...newest, ...published];
  } else if (command === "forget") {
    published = newest;
  }
  answer = provider(url, published);
  process.stdout.write("done\n");
}
process.exit(0);
