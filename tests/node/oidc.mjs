// An OpenID provider for the tests: the package oidc-provider on a port of 127.0.0.1, over TLS.
//
// Reads one JSON object from its arguments: {port, certificate, key, resource, client, secret, keys}.
// A line {"keys": [...]} on standard input starts it anew with other signing keys (key rotation).
// Prints "ready" whenever it serves. Access tokens for `resource` are JWTs, all others opaque.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { createInterface } from 'node:readline';
import Provider from 'oidc-provider';

const say = (text) => process.stdout.write(`${text}\n`);
console.info = console.log = console.error; // the package's own notices

const options = JSON.parse(process.argv[2]);
const issuer = `https://localhost:${options.port}`;

function provider(keys) {
  return new Provider(issuer, {
    clients: [
      {
        client_id: options.client,
        client_secret: options.secret,
        grant_types: ['client_credentials', 'authorization_code', 'refresh_token'],
        redirect_uris: [`${issuer}/back`],
        token_endpoint_auth_method: 'client_secret_basic',
      },
    ],
    jwks: { keys },
    scopes: ['openid', 'offline_access', 'xmpp'],
    claims: { openid: ['sub', 'preferred_username'] },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, preferred_username: id }) }),
    extraTokenClaims: (_, token) => ({ preferred_username: token.accountId }),
    features: {
      devInteractions: { enabled: false },
      introspection: { enabled: true },
      clientCredentials: { enabled: true },
      revocation: { enabled: true },
      userinfo: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: () => ({ scope: 'xmpp', audience: options.resource, accessTokenFormat: 'jwt', accessTokenTTL: 600 }),
      },
    },
  });
}

let current = provider(options.keys);

// Who has logged in at the provider gets a token; the pages on which people do that are not what is tested.
async function issue({ kind, user }) {
  const client = await current.Client.find(options.client);
  const grant = new current.Grant({ accountId: user, clientId: options.client });
  grant.addOIDCScope('openid xmpp');
  grant.addResourceScope(options.resource, 'xmpp');
  const grantId = await grant.save();
  const about = { accountId: user, client, grantId, gty: 'authorization_code', scope: kind === 'jwt' ? 'xmpp' : 'openid xmpp' };
  if (kind === 'id') {
    const token = new current.IdToken({ sub: user, preferred_username: user, nonce: 'n' }, { ctx: { oidc: { provider: current, client } } });
    token.scope = 'openid';
    return token.issue({ use: 'idtoken' });
  }
  const token = new (kind === 'refresh' ? current.RefreshToken : current.AccessToken)(about);
  if (kind === 'jwt') {
    token.resourceServer = new current.ResourceServer(options.resource, {
      scope: 'xmpp', audience: options.resource, accessTokenFormat: 'jwt', accessTokenTTL: 600,
    });
  }
  return token.save();
}

const tls = { cert: readFileSync(options.certificate), key: readFileSync(options.key) };
const server = createServer(tls, (request, response) => current.callback()(request, response));
server.listen(options.port, '127.0.0.1', () => say('ready'));

createInterface({ input: process.stdin })
  .on('line', async (line) => {
    const order = JSON.parse(line);
    if (order.keys) {
      current = provider(order.keys);
      say(JSON.stringify('ready'));
    } else {
      say(JSON.stringify(await issue(order).catch((error) => ({ error: String(error.stack) }))));
    }
  })
  .on('close', () => process.exit());
