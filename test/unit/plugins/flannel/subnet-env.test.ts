import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { readSubnetEnv } from '../../../../plugins/flannel/subnet-env.ts';

const complete = {
  FLANNEL_NETWORK: '10.244.0.0/16',
  FLANNEL_SUBNET: '10.244.1.1/24',
  FLANNEL_MTU: '1450',
  FLANNEL_IPMASQ: 'true',
};

function write(t: ExecutionContext, content: string | Record<string, string>): string {
  const directory = mkdtempSync(join(tmpdir(), 'flannel-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'subnet.env');
  const text =
    typeof content === 'string'
      ? content
      : Object.entries(content)
          .map((pair) => `${pair.join('=')}\n`)
          .join('');
  writeFileSync(file, text);
  return file;
}

test('reads what flanneld writes', (t) => {
  const env = readSubnetEnv(write(t, complete));
  t.deepEqual(env.networks.map(String), ['10.244.0.0/16']);
  t.deepEqual(env.subnets.map(String), ['10.244.1.0/24']);
  t.is(env.mtu, 1450);
  t.true(env.masquerades);
});

test('reads several networks and both families', (t) => {
  const env = readSubnetEnv(
    write(t, {
      ...complete,
      FLANNEL_NETWORK: '10.244.0.0/16,10.245.0.0/16',
      FLANNEL_IPV6_NETWORK: 'fd00:244::/48',
      FLANNEL_IPV6_SUBNET: 'fd00:244:0:1::1/64',
      FLANNEL_IPMASQ: 'false',
    }),
  );
  t.deepEqual(env.networks.map(String), ['10.244.0.0/16', '10.245.0.0/16', 'fd00:244::/48']);
  t.deepEqual(env.subnets.map(String), ['10.244.1.0/24', 'fd00:244:0:1::/64']);
  t.false(env.masquerades);
});

test('a network that is there twice counts once', (t) => {
  const networks = (list: string) =>
    readSubnetEnv(write(t, { ...complete, FLANNEL_NETWORK: list })).networks.map(String);
  t.deepEqual(networks('10.244.0.0/16,10.244.0.0/16'), ['10.244.0.0/16']);
  t.deepEqual(networks('10.244.0.0/16, 10.244.3.0/16,10.245.0.0/16'), ['10.244.0.0/16', '10.245.0.0/16']);
});

test('takes IPv6 alone', (t) => {
  const env = readSubnetEnv(
    write(t, {
      FLANNEL_IPV6_NETWORK: 'fd00:244::/48',
      FLANNEL_IPV6_SUBNET: 'fd00:244:0:1::1/64',
      FLANNEL_MTU: '1430',
      FLANNEL_IPMASQ: 'true',
    }),
  );
  t.deepEqual(env.subnets.map(String), ['fd00:244:0:1::/64']);
});

test('overlooks lines that say nothing, and a carriage return', (t) => {
  const text = Object.entries(complete)
    .map((pair) => `${pair.join('=')}\r\n`)
    .join('');
  const file = write(t, `no equals sign\n\n=\n# a comment\nOTHER=$(touch /tmp/x)\n\0\n${text}`);
  t.is(readSubnetEnv(file).mtu, 1450);
});

for (const missing of Object.keys(complete))
  test(`asks for ${missing} where that alone is missing`, (t) => {
    const rest = Object.fromEntries(Object.entries(complete).filter(([name]) => name !== missing));
    t.throws(() => readSubnetEnv(write(t, rest)), { message: new RegExp(`lacks ${missing}\\b`) });
  });

test('lists everything that is missing', (t) => {
  const error = t.throws(() => readSubnetEnv(write(t, 'FLANNEL_MTU=\nFLANNEL_IPMASQ=true\n')));
  t.regex(error.message, /FLANNEL_NETWORK.*FLANNEL_SUBNET.*FLANNEL_MTU/);
  t.notRegex(error.message, /FLANNEL_IPMASQ/);
});

for (const [name, value] of [
  ['FLANNEL_NETWORK', '10.244.0.0'],
  ['FLANNEL_NETWORK', '10.244.0.0/16,'],
  ['FLANNEL_NETWORK', 'fd00::/48'],
  ['FLANNEL_SUBNET', '10.244.1.1/24; rm -rf /'],
  ['FLANNEL_SUBNET', '10.244.1.1/24,10.244.2.1/24'],
  ['FLANNEL_SUBNET', '"10.244.1.1/33"'],
  ['FLANNEL_MTU', '-1'],
  ['FLANNEL_MTU', '1e3'],
  ['FLANNEL_MTU', '99999'],
] as const)
  test(`refuses ${name}=${value}`, (t) => {
    const error = t.throws(() => readSubnetEnv(write(t, { ...complete, [name]: value })));
    t.regex(error.message, new RegExp(`${name}.*must be`));
  });

test('says what to do when there is no such file', (t) => {
  t.throws(() => readSubnetEnv('/nonexistent/subnet.env'), { message: /does not exist yet.*flanneld runs/ });
});

test('reads no directory, no device and nothing endless', (t) => {
  t.throws(() => readSubnetEnv('/'), { message: /not a regular file/ });
  t.throws(() => readSubnetEnv('/dev/zero'), { message: /not a regular file/ });
  t.throws(() => readSubnetEnv(write(t, 'A=B\n'.repeat(20000))), { message: /more than the 65536/ });
});
