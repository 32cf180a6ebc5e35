import test from 'ava';
import { formatJson, formatResult, parseResult } from '../../../lib/cni/result.ts';

const newest = {
  cniVersion: '1.1.0',
  interfaces: [
    { name: 'cni0', mac: '00:11:22:33:44:55', mtu: 1400 },
    { name: 'eth0', sandbox: '/run/netns/x' },
  ],
  ips: [
    { address: '10.1.0.5/16', gateway: '10.1.0.1', interface: 1 },
    { address: 'fd00::5/64', interface: 1 },
  ],
  routes: [{ dst: '0.0.0.0/0', gw: '10.1.0.1', mtu: 1300, priority: 5 }, { dst: '::/0' }],
  dns: { nameservers: ['10.1.0.2'], domain: 'a.example' },
};

const written = (version: string) => JSON.parse(formatResult(parseResult(newest, '1.1.0'), version));

test('the newest version comes back whole', (t) => {
  t.deepEqual(written('1.1.0'), newest);
});

test('1.0.0 has no interface MTU; empty resolver settings are left out', (t) => {
  t.deepEqual(written('1.0.0').interfaces[0], { name: 'cni0', mac: '00:11:22:33:44:55' });
  t.false('dns' in JSON.parse(formatResult(parseResult({}, '1.0.0'), '1.0.0')));
});

test('0.3.0 to 0.4.0 say the family of an address and always write dns', (t) => {
  for (const version of ['0.3.0', '0.3.1', '0.4.0']) {
    const result = written(version);
    t.deepEqual(
      result.ips.map((ip: { version: string }) => ip.version),
      ['4', '6'],
    );
    t.is(result.cniVersion, version);
    t.deepEqual(JSON.parse(formatResult(parseResult({}, version), version)), {
      cniVersion: version,
      dns: {},
    });
  }
});

test('0.1.0 and 0.2.0 have one address a family, with its routes', (t) => {
  for (const version of ['0.1.0', '0.2.0'])
    t.deepEqual(written(version), {
      cniVersion: version,
      ip4: { ip: '10.1.0.5/16', gateway: '10.1.0.1', routes: [{ dst: '0.0.0.0/0', gw: '10.1.0.1' }] },
      ip6: { ip: 'fd00::5/64', routes: [{ dst: '::/0' }] },
      dns: { nameservers: ['10.1.0.2'], domain: 'a.example' },
    });
  t.throws(() => formatResult(parseResult({}, '0.2.0'), '0.2.0'), { message: /without an IP address/ });
});

test('every version is read back', (t) => {
  for (const version of ['0.3.1', '0.4.0', '1.0.0']) {
    const result = parseResult(written(version), version);
    t.is(result.ips[1]!.address.toString(), 'fd00::5/64');
    t.is(result.routes[0]!.gw!.toString(), '10.1.0.1');
  }
  const old = parseResult(written('0.2.0'), '0.2.0');
  t.is(old.ips.length, 2);
  t.is(old.routes[1]!.dst.toString(), '::/0');
});

test('keys are sorted from 1.0.0 on and follow the reference order below', (t) => {
  t.regex(formatResult(parseResult(newest, '1.1.0'), '1.1.0'), /"mac": [^}]*"name": "cni0"/);
  t.regex(formatResult(parseResult(newest, '1.1.0'), '0.4.0'), /"name": "cni0",\s*"mac"/);
});

test('prints as the reference library: four spaces, no newline at the end, HTML characters escaped', (t) => {
  t.is(formatJson({ msg: '<a> & b' }), '{\n    "msg": "\\u003ca\\u003e \\u0026 b"\n}');
});

test('null and nothing are an empty result', (t) => {
  for (const value of [null, undefined, {}]) t.is(parseResult(value, '1.0.0').ips.length, 0);
});

test('an address that is "" is none, as Go reads it', (t) => {
  const { ips, routes } = parseResult(
    {
      ips: [{ address: '10.1.0.5/16', gateway: '' }],
      routes: [{ dst: '0.0.0.0/0', gw: '' }],
    },
    '1.0.0',
  );
  t.deepEqual([ips[0]!.gateway, routes[0]!.gw], [undefined, undefined]);
  t.throws(() => parseResult({ ips: [{ address: '' }] }, '1.0.0'), { message: /"" is not an IP address/ });
});

test('a wrong value is named by its place', (t) => {
  t.throws(() => parseResult({ ips: [{ address: '10.1.0.5' }] }, '1.0.0'), {
    message: /^"prevResult\.ips\[0\]\.address": "10\.1\.0\.5" is not an IP address with a prefix length/,
  });
});
