/** Runs once: no agent takes part. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { type Host, makeHost } from '../support/host.ts';
import { type Access, KubeApi } from '../support/kube-api.ts';
import type { KubeObject } from '../support/kube-objects.ts';

const program = join(import.meta.dirname, '../support/kube-ask.ts');

/** The outcome of a call of the client. */
interface Answer {
  readonly value?: KubeObject & { items: KubeObject[]; continue?: string };
  readonly failure?: string;
  readonly code?: number;
  readonly status?: number;
  readonly reason?: string;
  readonly message?: string;
  readonly details?: string;
}

async function ask(
  host: Host,
  kubeconfig: string,
  calls: readonly (readonly unknown[])[],
  timeoutMs?: number,
): Promise<Answer[]> {
  const stdin = JSON.stringify({ kubeconfig, timeoutMs, calls });
  return JSON.parse(await host.run([process.execPath, '--no-warnings', program], { stdin })) as Answer[];
}

const pools = '/apis/whereabouts.cni.cncf.io/v1alpha1/namespaces/kube-system/ippools';
const pool = (name: string, more: object = {}) => ({
  ...{ apiVersion: 'whereabouts.cni.cncf.io/v1alpha1', kind: 'IPPool', metadata: { name, ...more } },
  spec: { range: '10.0.0.0/24', allocations: {} },
});
const pod = (name: string, node: string, labels: Record<string, string> = {}) => ({
  ...{ metadata: { name, labels }, spec: { nodeName: node }, status: { phase: 'Running' } },
});

test('objects are created, read, changed, listed and removed, over one connection', async (t) => {
  const host = await makeHost(t);
  const api = await KubeApi.start(t, host);
  for (const [name, node, labels] of [
    ['a', 'node-1', { app: 'web' }],
    ['b', 'node-2', { app: 'web' }],
    ['c', 'node-1', {}],
  ] as const)
    api.seed('pods', pod(name, node, labels));
  const pods = '/api/v1/namespaces/default/pods';
  const answers = await ask(host, api.kubeconfig(), [
    ['create', pools, pool('one')],
    ['patch', `${pools}/one`, { metadata: { annotations: { a: 'b' } } }, 'merge'],
    [
      'patch',
      `${pools}/one`,
      [{ op: 'add', path: '/spec/allocations/1', value: { id: 'x', podref: 'd/p' } }],
      'json',
    ],
    [
      'patch',
      `${pods}/a/status`,
      { status: { phase: 'Failed' }, metadata: { annotations: { x: 'y' } } },
      'strategic',
    ],
    ['get', `${pools}/one`],
    ['list', pods, { labelSelector: 'app=web' }],
    ['list', '/api/v1/pods', { fieldSelector: 'spec.nodeName=node-1' }],
    ['list', pods, { limit: 2 }],
    ['list', pods, { limit: 2, continue: '2' }],
    ['remove', `${pools}/one`, { resourceVersion: '1' }],
    ['remove', `${pools}/one`],
    ['get', `${pools}/one`],
  ]);
  const names = (answer?: Answer) => answer?.value?.items.map(({ metadata }) => metadata.name);
  const [created, , , status, read, web, onNode, first, next, changed, removed, gone] = answers;
  t.truthy(created!.value!.metadata.uid);
  t.deepEqual(read!.value!.spec, {
    range: '10.0.0.0/24',
    allocations: { 1: { id: 'x', podref: 'd/p' } },
  });
  t.deepEqual(read!.value!.metadata.annotations, { a: 'b' });
  t.is(status!.value!.status!.phase, 'Failed');
  t.deepEqual(names(web), ['a', 'b']);
  t.deepEqual(names(onNode), ['a', 'c']);
  t.deepEqual([names(first), first!.value!.continue], [['a', 'b'], '2']);
  t.deepEqual([names(next), next!.value!.continue], [['c'], undefined]);
  t.is(changed!.failure, 'conflict');
  t.falsy(removed!.failure);
  t.is(gone!.failure, 'not-found');
  t.is(api.requests.length, 12);
  t.is(api.connections, 1);
});

test('refusals are told apart', async (t) => {
  const host = await makeHost(t);
  const api = await KubeApi.start(t, host);
  const { metadata } = api.seed('ippools', {
    ...pool('one'),
    metadata: { name: 'one', namespace: 'kube-system' },
  });
  api.seed('pods', pod('a', 'node-1'));
  api.isAllowed = (_, verb, resource) => resource !== 'nodes' || verb !== 'get';
  const stale = { ...pool('one'), metadata: { name: 'one', resourceVersion: '7' } };
  const wrong = { ...pool('two'), spec: { range: 7, allocations: {} } };
  const unknown = { ...pool('x:y') };
  const answers = await ask(host, api.kubeconfig('k', { hasCertificate: true }), [
    ['create', pools, pool('one')],
    ['update', `${pools}/one`, stale],
    ['update', `${pools}/one`, { ...pool('one'), metadata }],
    ['create', pools, wrong],
    ['create', pools, unknown],
    ['get', '/api/v1/nodes/a'],
    ['get', '/apis/nothing.example/v1/things'],
    ['patch', `${pools}/one`, {}, 'strategic'],
    ['list', '/api/v1/namespaces/default/pods/a'],
  ]);
  t.deepEqual(
    answers.map(({ failure, status, reason }) => [failure, status, reason]),
    [
      ['conflict', 409, 'AlreadyExists'],
      ['conflict', 409, 'Conflict'],
      [undefined, undefined, undefined],
      ['invalid', 422, 'Invalid'],
      ['invalid', 422, 'Invalid'],
      ['forbidden', 403, 'Forbidden'],
      ['garbled', 404, ''],
      ['refused', 415, 'UnsupportedMediaType'],
      ['garbled', undefined, ''],
    ],
  );
  t.regex(answers[5]!.message!, /forbids it .*ClusterRole.*User "system:node" cannot get/);
  t.true(answers.every(({ failure, code }) => failure === undefined || code === 11));
});

test('what cannot be reached, trusted or understood is told apart, in bounded time', async (t) => {
  const host = await makeHost(t);
  const api = await KubeApi.start(t, host);
  api.seed('pods', pod('a', 'node-1'));
  const get = [['get', '/api/v1/namespaces/default/pods/a']];
  const failureOf = async (access: Access, pattern: RegExp, timeoutMs?: number) => {
    const [answer] = await ask(host, api.kubeconfig('k', access), get, timeoutMs);
    t.regex(`${answer!.message} ${answer!.details}`, pattern);
    return answer!.failure;
  };
  t.is(await failureOf({ token: 'expired' }, /does not know the user .* Renew its token/), 'unauthorized');
  t.is(await failureOf({ user: {} }, /system:anonymous/), 'forbidden');
  const stranger = { 'client-certificate': 'stranger.crt', 'client-key': 'stranger.key' };
  t.is(await failureOf({ user: stranger }, /system:anonymous/), 'forbidden');
  const other = { 'certificate-authority': 'other.crt' };
  t.is(await failureOf({ cluster: other }, /do not match/), 'tls');
  t.is(await failureOf({ cluster: { 'tls-server-name': 'elsewhere' } }, /elsewhere/), 'tls');
  t.is(await failureOf({ cluster: { server: 'https://127.0.0.1:1' } }, /ECONNREFUSED/), 'unreachable');
  t.is(await failureOf({ cluster: { server: 'http://127.0.0.1:6443' } }, /127\.0\.0\.1:6443/), 'unreachable');
  const [named, skipped] = await Promise.all([
    ask(host, api.kubeconfig('named', { cluster: { 'tls-server-name': 'kubernetes' } }), get),
    ask(
      host,
      api.kubeconfig('skipped', {
        cluster: { 'certificate-authority': undefined, 'insecure-skip-tls-verify': true },
      }),
      get,
    ),
  ]);
  t.is(named[0]!.value!.metadata.name, 'a');
  t.is(skipped[0]!.value!.metadata.name, 'a');
  api.onRequest = () => 'hang';
  t.is(await failureOf({}, /no answer within \d+ ms/, 300), 'unreachable');
  api.onRequest = () => 'close';
  t.is(await failureOf({}, /does not answer/), 'unreachable');
  for (const body of ['<html>', '[1]', '"x"', '']) {
    api.onRequest = () => ({ status: 200, body });
    t.is(await failureOf({}, /does not speak as the Kubernetes API does/), 'garbled');
  }
  const status = { kind: 'Status', apiVersion: 'v1', reason: 'NotFound' };
  for (const body of [
    'default backend - 404',
    '<html>',
    {},
    status,
    { ...status, details: { kind: 'pods' } },
  ]) {
    api.onRequest = () => ({ status: 404, body });
    t.is(await failureOf({}, /does not serve the kind of object.*HTTP status 404/), 'garbled');
  }
  const details = { name: 'a', kind: 'pods' };
  api.onRequest = () => ({ status: 404, body: { ...status, details, message: 'pods "a" not found' } });
  t.is(await failureOf({}, /has no such object.*pods "a" not found/), 'not-found');
  api.onRequest = () => ({ status: 502, body: '<html>Bad gateway</html>' });
  t.is(await failureOf({}, /cannot answer at present.*HTTP status 502/), 'busy');
  let asked = 0;
  api.onRequest = () =>
    asked++ === 0 ? { status: 429, body: {}, headers: { 'retry-after': '0' } } : undefined;
  t.is((await ask(host, api.kubeconfig(), get))[0]!.value!.metadata.name, 'a');
  t.is(asked, 2);
  api.onRequest = () => ({ status: 429, body: {}, headers: { 'retry-after': '3600' } });
  t.is(await failureOf({}, /HTTP status 429/), 'busy');
  await api.down();
  t.is(await failureOf({}, /does not answer/), 'unreachable');
});

test('without an authority of its own, a kubeconfig counts on those of the host', async (t) => {
  const host = await makeHost(t);
  const api = await KubeApi.start(t, host);
  api.seed('pods', pod('a', 'node-1'));
  const path = api.kubeconfig('k', { cluster: { 'certificate-authority': undefined } });
  const get = [['get', '/api/v1/namespaces/default/pods/a']];
  await host.run(['mount', '-t', 'tmpfs', 'tmpfs', '/etc/ssl/certs']);
  t.is((await ask(host, path, get))[0]!.failure, 'tls');
  await host.run(['cp', '/run/kube-pki/ca.crt', '/etc/ssl/certs/ca-certificates.crt']);
  t.is((await ask(host, path, get))[0]!.value!.metadata.name, 'a');
});

test('a connection that the server has closed is replaced', async (t) => {
  const host = await makeHost(t);
  const api = await KubeApi.start(t, host);
  api.seed('pods', pod('a', 'node-1'));
  const get = ['get', '/api/v1/namespaces/default/pods/a'];
  let asked = 0;
  api.onRequest = () => (++asked === 2 ? 'close' : undefined);
  const answers = await ask(host, api.kubeconfig(), [get, get]);
  t.is(answers[1]!.value!.metadata.name, 'a');
  t.is(api.connections, 2);
});

test('a kubeconfig that cannot be used says what is wrong, and no secret', async (t) => {
  const host = await makeHost(t);
  const api = await KubeApi.start(t, host);
  api.seed('pods', pod('a', 'node-1'));
  const get = [['get', '/api/v1/namespaces/default/pods/a']];
  const failsBy = async (path: string, pattern: RegExp) => {
    const [answer] = await ask(host, path, get);
    t.regex(`${answer!.message}`, pattern);
    t.notRegex(JSON.stringify(answer), /s3cret/);
  };
  for (const [access, pattern] of [
    [
      { user: { exec: { command: 'aws' } } },
      /User "node" has "exec", which runs a program .* Give it a "token"/,
    ],
    [{ user: { 'auth-provider': { name: 'gcp' } } }, /"auth-provider"/],
    [{ user: { as: 'root', token: 's3cret' } }, /"as", which acts on behalf/],
    [{ user: { token: 's3cret\nX-Header: 1' } }, /has a token with spaces/],
    [{ user: { token: 7 } }, /"token" that is not a string/],
    [
      { user: { tokenFile: 'nowhere' } },
      /"\/run\/kube-pki\/nowhere" cannot be read and is named in kubeconfig/,
    ],
    [{ user: { 'client-certificate': 'client.crt' } }, /only one of "client-certificate" and "client-key"/],
    [
      { user: { 'client-certificate': 'client.crt', 'client-key': 'client.san' } },
      /"client-key" that is not PEM/,
    ],
    [{ user: { 'client-certificate': 'client.crt', 'client-key': 'other.key' } }, /do not match/],
    [{ cluster: { 'certificate-authority-data': 's3cret' } }, /"certificate-authority-data" that is not PEM/],
    [{ cluster: { 'proxy-url': 'http://x' } }, /"proxy-url"/],
    [{ cluster: { server: 'ftp://x' } }, /Cluster "one" has no usable "server"/],
    [{ context: { cluster: 'two' } }, /has no cluster "two" in "clusters"/],
    [{ context: { user: 'me' } }, /has no user "me"/],
  ] as [Access, RegExp][])
    await failsBy(api.kubeconfig('k', access), pattern);
  await failsBy('/nowhere', /"\/nowhere" cannot be read/);
  await failsBy('/run', /cannot be read/);
  const path = '/run/kube-pki/broken';
  for (const [text, pattern] of [
    ['', /is not YAML with the keys/],
    ['users:\n- token: "s3cret', /, line 2 is not YAML/],
    [`${'['.repeat(100_000)}s3cret`, /is not YAML/],
    ['a: *s3cret', /, line 1 is not YAML/],
    ['{"contexts": []}', /does not say which context to use. Set "current-context"/],
    ['{"current-context": "x", "contexts": [7, {"name": "x"}]}', /does not say which cluster to use/],
  ] as const) {
    writeFileSync(host.file(path), text);
    await failsBy(path, pattern);
  }
  // The token's file is relative to the kubeconfig, which is JSON here, and comes before "token".
  writeFileSync(host.file('/run/kube-pki/token'), 'node-token\n');
  const [answer] = await ask(host, api.kubeconfig('k', { user: { tokenFile: 'token', token: 'old' } }), get);
  t.is(answer!.value!.metadata.name, 'a');
});
