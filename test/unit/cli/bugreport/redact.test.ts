import test from 'ava';
import { redactFile, redactText, redactValue } from '../../../../cli/bugreport/redact.ts';

for (const key of [
  'password',
  'etcd_password',
  'dbPassword',
  'PASSWORD',
  'token',
  'k8s_auth_token',
  'apiToken',
  'clientSecret',
  'secret',
  'private_key',
  'privateKey',
  'client-key-data',
  'sslKey',
  'ssl_key',
  'key',
  'tls.key',
  'etcd_key_file',
  'psk',
  'passphrase',
  'authorization',
  'credentials',
  'apikey',
  'authkey',
  'AccessKey',
  'signingkey',
  'privkey',
  'presharedkey',
  'pwd',
  'dbPwd',
  'passcode',
  'bearer',
])
  test(`the value of "${key}" is left out`, (t) => {
    t.deepEqual(redactValue({ a: [{ [key]: 'x' }] }), { a: [{ [key]: 'REDACTED' }] });
    t.deepEqual(redactValue({ [key]: { any: 1 } }), { [key]: 'REDACTED' });
    t.notRegex(redactFile(`{"${key}": "hidden`), /hidden/);
  });

for (const key of [
  'name',
  'type',
  'mtu',
  'bridge',
  'keyboard',
  'passthru',
  'author',
  'mode',
  'keepalive',
  'cniVersion',
  'isolated',
])
  test(`the value of "${key}" is kept`, (t) => {
    t.deepEqual(redactValue({ [key]: 'x' }), { [key]: 'x' });
    t.is(redactText(`${key}: x`), `${key}: x`);
  });

test('secrets are told by their form in any text', (t) => {
  t.is(redactText('https://user:hidden@example.com/x'), 'https://user:REDACTED@example.com/x');
  t.is(redactText('https://example.com:2379/a@b'), 'https://example.com:2379/a@b');
  t.is(redactText('Authorization: Bearer abcdefgh1234').includes('abcdefgh1234'), false);
  t.is(redactText('-----BEGIN RSA PRIVATE KEY-----\nab\ncd'), 'REDACTED');
  t.is(
    redactText('net.ipv6.conf.eth0.stable_secret = 2001::1'),
    'net.ipv6.conf.eth0.stable_secret = "REDACTED"',
  );
  t.is(redactText('net.ipv4.tcp_fastopen_key = 0-0-0-0'), 'net.ipv4.tcp_fastopen_key = "REDACTED"');
});

test('secrets in the query of a URL are left out, whatever precedes them', (t) => {
  t.is(
    redactText('https://h/?user=kept&token=hidden#kept').replaceAll('"', ''),
    'https://h/?user=kept&token=REDACTED#kept',
  );
  t.is(redactText('https://h/?apikey=hidden').replaceAll('"', ''), 'https://h/?apikey=REDACTED');
  t.notRegex(redactText('password=//hidden'), /hidden/);
});

test('blocks of YAML that are named like secrets are left out', (t) => {
  const text = [
    'user:',
    '  - token: |',
    '      hidden',
    '',
    '        hidden: hidden',
    '    name: kept',
    '  "password": !!str >-  # folded',
    '   hidden hidden',
    'note: |',
    '  kept',
  ].join('\n');
  t.is(
    redactText(text),
    [
      'user:',
      '  - token: "REDACTED"',
      '    name: kept',
      '  "password": "REDACTED"',
      'note: |',
      '  kept',
    ].join('\n'),
  );
});

test('values of YAML that are named like secrets are left out in any style', (t) => {
  for (const value of [
    ' "hidden\\n\n  hidden"',
    " 'hidden\n\n  it''s hidden'",
    ' hidden\n  hidden: hidden',
    ' hidden hidden',
    '\n  hidden',
    '\n  - hidden\n  - hidden',
    '\n- hidden\n-\n  hidden',
    '\n  a: hidden\n  b: {c: hidden}',
    ' [hidden, hidden]',
    ' [hidden,\n  hidden]',
    ' {a: hidden, b: [hidden]}',
  ])
    for (const [before, after] of [
      ['name: kept\n', '\nname: kept\n- kept'],
      ['name: kept\n- ', '\n- name: kept'],
      ['name: kept\n  "', '\n  name: kept'],
    ] as const) {
      const key = before.endsWith('"') ? 'tokens":' : 'tokens:';
      const indent = ' '
        .repeat(before.length - before.lastIndexOf('\n') - 1)
        .slice(key.includes('"') ? 1 : 0);
      const text = before + key + value.replaceAll('\n', `\n${indent}`) + after;
      t.is(redactText(text), `${before}${key} "REDACTED"${after}`, text);
    }
  t.is(redactText('a: {token: [hidden, {b: "]hidden"}], name: kept}'), 'a: {token: "REDACTED", name: kept}');
  t.is(redactText('{"a": 1, "token": {"b": "hidden'), '{"a": 1, "token": "REDACTED"');
});

test('a secret is found in the value of another key', (t) => {
  t.is(redactText('env: PASSWORD=hidden'), 'env: PASSWORD="REDACTED"');
  t.is(
    redactText('CNI_ARGS=TOKEN=hidden;NAME=kept TOKEN=hidden'),
    'CNI_ARGS=TOKEN="REDACTED";NAME=kept TOKEN="REDACTED"',
  );
  t.is(redactText("env: 'A=kept PASSWORD=hidden'").includes('hidden'), false);
});

test('CNI_ARGS are kept', (t) => {
  t.deepEqual(redactValue({ cniArgs: [['SECRET', 'x']] }), { cniArgs: [['SECRET', 'x']] });
});

test('the names of secrets count as names of variables and options as well', (t) => {
  const container = {
    env: [
      { name: 'DB_PASSWORD', value: 'hidden' },
      { name: 'MODE', value: 'kept' },
    ],
    args: ['--password', 'hidden', '--mode', 'kept', '--token=hidden', 'sh -c "login --password hidden"'],
  };
  for (const text of [JSON.stringify(redactValue(container)), redactFile(JSON.stringify(container))]) {
    t.notRegex(text, /hidden/);
    t.is(text.match(/kept/g)?.length, 2);
  }
  t.is(redactText('login --password hidden --user kept'), 'login --password REDACTED --user kept');
});

test('JSON within a string is looked through', (t) => {
  const inner = JSON.stringify([{ name: 'storage', 'cni-args': { password: 'hidden' } }]);
  t.deepEqual(redactValue({ networks: inner }), {
    networks: '[{"name":"storage","cni-args":{"password":"REDACTED"}}]',
  });
  t.is(redactValue('[kept'), '[kept');
});

test('of the annotations of pods, those that plugins read are kept', (t) => {
  const annotations = {
    'kubectl.kubernetes.io/last-applied-configuration': '{"any":"hidden"}',
    'v1.multus-cni.io/default-network': 'backup',
    'k8s.v1.cni.cncf.io/networks': '[{"name":"storage","cni-args":{"token":"hidden"}}]',
    cni: 'weave',
  };
  const capabilityArgs = { 'io.kubernetes.cri.pod-annotations': annotations, ips: ['10.0.0.1'] };
  t.deepEqual(redactValue({ capabilityArgs }), {
    capabilityArgs: {
      'io.kubernetes.cri.pod-annotations': {
        'v1.multus-cni.io/default-network': 'backup',
        'k8s.v1.cni.cncf.io/networks': '[{"name":"storage","cni-args":{"token":"REDACTED"}}]',
        cni: 'weave',
      },
      ips: ['10.0.0.1'],
    },
  });
});

test('a token is taken out wherever it stands', (t) => {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const token = `${part({ alg: 'RS256', kid: 'a' })}.${part({ sub: 'system:serviceaccount:a:b' })}.c2ln-bmF0_dXJl`;
  t.is(redactText(`saw ${token} in a log`), 'saw REDACTED in a log');
  t.deepEqual(JSON.parse(redactFile(JSON.stringify({ foo: token }))), { foo: 'REDACTED' });
});

test('long text takes no longer than its length', (t) => {
  // If it were searched anew from each of its characters, it would take minutes.
  for (const word of ['a', 'a-', '-eyJaaaaaaaaa', '--a', '"', 'a:[', 'a: ', 'a:"', "'a':'", 'a=\n', '- '])
    t.is(redactText(word.repeat(200_000 / word.length)).slice(0, word.length), word);
  for (const word of ['key:[', 'key: ', 'key:"', 'key:\\"', "key='", 'key:\n', '- key: -\n', '[key:[[]'])
    t.true(redactText(word.repeat(200_000 / word.length)).length < 1_000_000);
});

test('what is nested without end is taken as text', (t) => {
  const text = `${'['.repeat(20_000)}"password": "hidden"`;
  t.notRegex(redactFile(text), /hidden/);
  t.is(redactValue('['.repeat(20_000)), '['.repeat(20_000));
});
