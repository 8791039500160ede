// An OpenID provider for tests: panva's, certified, with its own pages for signing in. Reads its settings as JSON from
// standard input: `issuer`, `address`, `port`, `clients` and `lifetimes` in seconds; for HTTPS also `tls`, with `key` and
// `cert`. Whoever gives a name is that person, in the `groups` of that name, if there are any.
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";

import { Provider } from "oidc-provider";

const { issuer, address, port, tls, clients, lifetimes, groups = {} } = JSON.parse(readFileSync(0, "utf8"));

const provider = new Provider(issuer, {
  clients,
  ttl: lifetimes,
  cookies: { keys: [crypto.randomUUID()] },
  claims: { openid: ["sub"], profile: ["preferred_username", "groups"] },
  // oauth2-proxy passes on the ID token, and asks for no others.
  conformIdTokenClaims: false,
  findAccount: (_ctx, sub) => ({
    accountId: sub,
    claims: () => ({ sub, preferred_username: sub, groups: groups[sub] }),
  }),
  issueRefreshToken: (_ctx, client) => client.grantTypeAllowed("refresh_token"),
  rotateRefreshToken: true,
  // Without its dispatcher, which connects to no loopback addresses: sites under test have such.
  fetch: (url, { dispatcher: _, ...options }) => fetch(url, options),
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    backchannelLogout: { enabled: true },
  },
});
provider.on("server_error", (_ctx, error) => console.error(error));
provider.on("backchannel.error", (_ctx, error) => console.error(error));
const server = tls ? https.createServer(tls, provider.callback()) : http.createServer(provider.callback());
server.listen(port, address, () => console.log(`listens on ${port}`));
