/** Answers of daemons and programs that this suite asks: etcd, Open vSwitch, firewalld, foreign plugins. */

import { chmodSync } from 'node:fs';
import { join } from 'node:path';
import { agentStatus } from '../../cli/agent-status.ts';
import { versionsOf } from '../../cli/plugin-versions.ts';
import { formatError } from '../../lib/cni/error-object.ts';
import { readError } from '../../lib/cni/exec.ts';
import { formatResult, readOutput } from '../../lib/cni/result.ts';
import { specVersions } from '../../lib/cni/version.ts';
import { EtcdClient } from '../../lib/etcd/client.ts';
import * as kv from '../../lib/etcd/kv.ts';
import { listPrefix, watchPrefix } from '../../lib/etcd/watch.ts';
import { Zone } from '../../lib/firewall/firewalld.ts';
import { Address } from '../../lib/ip.ts';
import type { Programs } from '../../lib/kernel/programs.ts';
import { OvsdbConnection } from '../../lib/ovsdb/database.ts';
import * as mirrors from '../../lib/ovsdb/mirrors.ts';
import * as ports from '../../lib/ovsdb/ports.ts';
import { httpAnswer, withHttpServer, withRpcServer, withSocketServer } from './answering.ts';
import { answerOf, environmentOf, plugins, requireAnswer, requireNoStack } from './calls.ts';
import { quietly } from './socket-targets.ts';
import { mayRefuse, mayRefuseLater, place, type Target } from './target.ts';

const dhcp = plugins.find(({ name }) => name === 'dhcp')!;

const base64 = (text: string) => Buffer.from(text).toString('base64');
const pair = { key: base64('/a/b'), value: base64('{}'), lease: '7', create_revision: '3' };
const header = { cluster_id: '1', member_id: '2', revision: '5', raft_term: '1' };
const etcdAnswers = [
  { header, kvs: [pair], count: '1' },
  { header, succeeded: true, responses: [{ response_range: { kvs: [pair], count: '1' } }] },
  { header, responses: [{ response_delete_range: { prev_kvs: [pair] } }, { response_put: {} }] },
  { header, ID: '7', TTL: '60', keys: [base64('/a/b')], token: 'a.1' },
  { result: { header, TTL: '60', created: true, events: [{ kv: pair }, { type: 'DELETE', kv: pair }] } },
  { result: { header, canceled: true, compact_revision: '4', cancel_reason: 'why' } },
  { header, kvs: [{ ...pair, lease: { toString: 1 } }], events: [null] },
  { error: { message: 'no leader', grpc_code: 14 } },
];

/** What plugins ask of etcd. */
const etcdUses: readonly ((client: EtcdClient) => Promise<unknown>)[] = [
  async (client) => requireTexts((await listPrefix(client, '/a/')).kvs),
  (client) => kv.transact(client, { compare: [kv.isAbsent('/a')], success: [kv.get('/a')] }),
  (client) => {
    const inner = { compare: [], success: [kv.remove('/a')] };
    const failure = [kv.remove('/a'), kv.put('/a', 'b')];
    return kv.transact(client, { compare: [], success: [kv.within(inner)], failure });
  },
  (client) => kv.grantLease(client, 60),
  (client) => kv.renewLease(client, '7'),
  (client) => kv.isLease(client, '7'),
  (client) => kv.keysOfLease(client, '7'),
  async (client) => {
    const end = new AbortController();
    for await (const changes of watchPrefix(client, '/a/', 1n, end.signal))
      requireTexts(changes.map((change) => change.kv));
    end.abort();
  },
];

/** @throws TypeError when one of a pair's three parts is no text. */
function requireTexts(pairs: readonly kv.KeyValue[]): void {
  for (const { key, value, lease } of pairs)
    if (![key, value, lease].every((one) => typeof one === 'string'))
      throw new TypeError(`Read as a pair: ${JSON.stringify([key, value, lease])}`);
}

const row = {
  ...{ _uuid: ['uuid', 'u1'], name: 'br1', type: '', error: ['set', []], ofport: 3, tag: 7 },
  ...{ trunks: ['set', [1, 2]], vlan_mode: 'access', ports: ['set', [['uuid', 'u2']]] },
  ...{ mirrors: ['uuid', 'u1'], interfaces: ['uuid', 'u4'], select_src_port: ['uuid', 'u2'] },
  ...{ select_dst_port: ['set', []], output_port: ['set', []] },
  external_ids: [
    'map',
    [
      ['owner', 'ovs-cni.network.kubevirt.io'],
      ['contNetwork', 'n'],
    ],
  ],
};
const ovsdbAnswers = [
  [{ rows: [row] }],
  [{ rows: [row, row] }, { count: 1 }, null],
  [{ error: 'timed out', details: 'd' }],
  [{ rows: [{ ...row, name: { toString: 1 }, external_ids: ['map', [[{ toString: 1 }, 'a']]] }] }],
  [{ rows: [null] }],
  [{ rows: {} }],
  null,
].map((result) => ({ id: 1, result, error: null }));

/** What plugins ask of Open vSwitch. */
const ovsdbUses: readonly ((db: OvsdbConnection) => Promise<unknown>)[] = [
  (db) => ports.findBridge(db, 'br1'),
  async (db) => {
    const found = await ports.listPodPorts(db);
    const own = { network: 'n', containerId: 'c1', ifname: 'eth0' };
    return [
      ports.removePorts(found),
      found.map((one) => [ports.isPortOf(one, own, '/n'), ports.attachmentOf(one)]),
    ];
  },
  (db) => ports.findPort(db, 'p'),
  (db) => ports.findInterface(db, 'p'),
  (db) => ports.listSystemInterfaces(db),
  (db) => db.waitFor('Interface', [['name', '==', 'p']], '!=', { ofport: 1 }, 10),
  async (db) => {
    const found = await mirrors.findMirrors(db, 'br1');
    if (!found) return;
    const parts = [{ name: 'm1', roles: ['source', 'output'] as const }];
    return [mirrors.joinMirrors(found, 'u2', parts), mirrors.leaveMirrors(found, 'u2', parts)];
  },
];

const result = {
  cniVersion: '1.1.0',
  interfaces: [{ name: 'eth0', mac: '02:00:00:00:00:01', sandbox: '/n' }],
  ips: [{ address: '10.1.0.2/24', gateway: '10.1.0.1', interface: 0 }],
  routes: [{ dst: '0.0.0.0/0' }],
};
const lines = (...values: readonly unknown[]) => values.map((value) => `${JSON.stringify(value)}\n`);

export const replyTargets: readonly Target[] = [
  {
    name: 'etcd-reply',
    samples: [
      ...etcdAnswers.map((answer) => httpAnswer(answer)),
      httpAnswer({ code: 16, message: 'invalid auth token' }, '401 Unauthorized'),
      httpAnswer('', '101 Switching Protocols', 'upgrade: x\r\nconnection: upgrade\r\n'),
      httpAnswer('', '200 OK', 'content-length: 9\r\n'),
      httpAnswer('<html>', '503 Service Unavailable'),
    ],
    run: (answer) =>
      withHttpServer(answer, async (port) => {
        const origin = `http://127.0.0.1:${port}`;
        const endpoints = [{ isSecure: false, host: '127.0.0.1', port, origin }];
        for (const user of [{}, { username: 'u', password: 'p' }]) {
          const client = new EtcdClient({ endpoints, longestCallMs: 200, ...user });
          for (const use of 'username' in user ? etcdUses.slice(0, 1) : etcdUses)
            await mayRefuseLater(() => use(client));
        }
      }),
  },
  {
    name: 'ovsdb-reply',
    samples: [
      ...ovsdbAnswers.map((answer) => JSON.stringify(answer)),
      JSON.stringify({ id: 1, method: 'echo', params: [] }) + JSON.stringify(ovsdbAnswers[0]),
      JSON.stringify({ id: 1, result: null, error: { error: 'x' } }),
      '[[],{}]',
    ],
    async run(answer, directory) {
      const path = join(directory, 'db.sock');
      await withRpcServer(path, answer, async () => {
        for (const use of ovsdbUses) {
          using db = await OvsdbConnection.open(`unix:${path}`);
          await mayRefuseLater(() => use(db));
        }
      });
    },
  },
  {
    name: 'dhcp-reply',
    samples: [
      ...lines({ result: { result, isNew: true } }, { error: { code: 11, msg: 'm', details: 'd' } }, {}),
      ...lines(null, { result: null }, { error: { code: 'x', msg: 1, details: [] } }, { error: 1 }, []),
      'HTTP/1.1 400 Bad Request\r\n\r\n',
    ],
    async run(answer, directory) {
      const daemonSocketPath = join(directory, 'dhcp.sock');
      const ipam = { type: 'dhcp', daemonSocketPath };
      const config = { cniVersion: '1.1.0', name: 'n', type: 'x', ipam, 'cni.dev/valid-attachments': [] };
      await withSocketServer(daemonSocketPath, answer, async () => {
        for (const verb of ['ADD', 'CHECK', 'DEL', 'GC', 'STATUS'])
          await answerOf(dhcp, JSON.stringify(config), environmentOf(verb));
      });
    },
  },
  {
    name: 'agent-status-reply',
    samples: [
      {
        ...{ pid: 1, build: 'b', priority: 0, uptimeSeconds: 1, running: 0, queued: 0, refused: 0 },
        memoryMiB: 1,
        calls: [{ plugin: 'p', verb: 'ADD', calls: 1, failures: 0, p50Ms: 1, p99Ms: 2, codes: { '0': 1 } }],
        overlay: { problem: 'a\nb', backend: 'vxlan', subnets: ['10.1.0.0/24'], nodes: 1 },
      },
      ...[null, 5, [], {}, { calls: [null] }],
    ].map((status) => Buffer.concat([Buffer.from('E\0\0\0\0\0'), Buffer.from(JSON.stringify(status))])),
    async run(answer, directory) {
      const socket = join(directory, 'agent.sock');
      await withSocketServer(socket, answer, async () => {
        for (const output of ['text', 'json'] as const)
          await quietly(() => mayRefuseLater(async () => agentStatus.handler({ socket, output } as never)));
      });
    },
  },
  {
    name: 'plugin-answer',
    samples: [
      JSON.stringify(result),
      JSON.stringify({ cniVersion: '0.2.0', ip4: { ip: '10.1.0.2/24', gateway: '10.1.0.1' } }),
      ...['{"code":7,"msg":"m","details":"d"}', '{"code":1.5,"msg":"m"}', '{"code":1e999}', ''],
    ],
    run(answer) {
      const output = answer.toString('utf8');
      requireAnswer(formatError(readError('/bin/x', output, 'exit code 1'), '1.1.0'), 1);
      for (const version of specVersions)
        mayRefuse(() => {
          const read = readOutput(output, 'x', version);
          requireNoStack(formatResult(read.result, '1.1.0'));
        });
    },
  },
  {
    name: 'plugin-versions',
    samples: [
      '{"cniVersion":"1.1.0","supportedVersions":["0.4.0","1.1.0"]}',
      '{"supportedVersions":[{"toString":1}]}',
    ],
    run(answer, directory) {
      // It prints itself, from the second line on.
      const file = join(directory, 'plugin');
      place(file, Buffer.concat([Buffer.from('#!/usr/bin/tail -n+2\n'), answer]));
      chmodSync(file, 0o755);
      const versions = versionsOf(file);
      requireNoStack(`${versions}`);
      if (Array.isArray(versions) && !versions.every((one) => typeof one === 'string'))
        throw new Error(`Read as versions: ${JSON.stringify(versions)}`);
    },
  },
  {
    name: 'firewalld-reply',
    // The exit code of dbus-send comes first, then its output.
    samples: [
      '\0method return sender=:1.2 -> dest=:1.3\n   boolean true\n',
      '\x01Error org.fedoraproject.FirewallD1.Exception: ZONE_ALREADY_SET: a\n',
      '\x01Error org.freedesktop.DBus.Error.ServiceUnknown: The name is not activatable\n',
    ],
    async run(answer) {
      const [status = 0] = answer;
      const text = answer.toString('utf8', 1);
      const programs = {
        environment: { DBUS_SYSTEM_BUS_ADDRESS: 'unix:path=/none-such' },
        run: async () => ({ status, stdout: text, stderr: text }),
      } as unknown as Programs;
      const zone = new Zone(programs, 'trusted');
      const address = Address.parse('10.1.0.2');
      const uses = [() => zone.add(address), () => zone.has(address), () => zone.remove(address)];
      for (const use of [...uses, () => zone.isReachable()]) await mayRefuseLater(use);
    },
  },
];
