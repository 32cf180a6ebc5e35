/** Answers of the kernel: everything that reads them is given what no kernel would send. */

import { closeSync } from 'node:fs';
import { Address, Prefix } from '../../lib/ip.ts';
import { addAddress, listAddresses } from '../../lib/kernel/address.ts';
import { listBridgeVlans } from '../../lib/kernel/bridge-port.ts';
import { createLink, getLink, listLinks } from '../../lib/kernel/link.ts';
import { listForwarding, listNeighbours, setForwarding, setNeighbour } from '../../lib/kernel/neighbour.ts';
import { addRoute, listRoutes, lookUpRoute } from '../../lib/kernel/route.ts';
import { addRoutingRule, listRoutingRules } from '../../lib/kernel/rule.ts';
import {
  addTokenBucket,
  getTokenBucket,
  ingressRedirections,
  redirectIngress,
  tokenBucket,
} from '../../lib/kernel/traffic-control.ts';
import { libc } from '../../lib/netlink/libc.ts';
import {
  decodeMessages,
  encodeMessage,
  headerSize,
  type Message,
  type Request,
} from '../../lib/netlink/message.ts';
import { addChain, hasChain, isOwnedTable, listBaseChains } from '../../lib/netlink/nftables/objects.ts';
import * as nft from '../../lib/netlink/nftables/rules.ts';
import { addElement, addSet, findSets } from '../../lib/netlink/nftables/sets.ts';
import type { NftTable } from '../../lib/netlink/nftables/wire.ts';
import { getRawRules, listRawRules } from '../../lib/netlink/nftables/xtables.ts';
import { NetlinkSocket } from '../../lib/netlink/socket.ts';
import { conntrackTarget } from './conntrack-target.ts';
import { incompleteOf } from './incomplete.ts';
import { counter } from './nft-sample.ts';
import { mayRefuse, type Target } from './target.ts';

const AF_UNIX = 1;
const SOCK_DGRAM_NONBLOCK = 2 | 0x800;

/**
 * Does something with a socket on which answers that are not the kernel's are already waiting.
 * @param answers each of them a datagram.
 */
function withAnswers(answers: readonly Uint8Array[], work: (socket: NetlinkSocket) => void): void {
  const address = Buffer.from(`\x01\x00\0cni-fuzz-${process.pid}`, 'latin1');
  const [fd, kernel] = [0, 1].map(() => libc('open a socket', 'socket', AF_UNIX, SOCK_DGRAM_NONBLOCK, 0));
  try {
    libc('bind a socket', 'bind', fd!, address, address.length);
    for (const one of answers) libc('answer', 'sendto', kernel!, one, one.length, 0, address, address.length);
    const socket = Object.assign(Object.create(NetlinkSocket.prototype) as NetlinkSocket, {
      ...{ fd, sequence: 0 },
      send: () => {},
    });
    work(socket);
  } finally {
    closeSync(fd!);
    closeSync(kernel!);
  }
}

/** A request made an answer, with a sequence number: lists have objects in the form that requests have. */
const answer = (request: Request, sequence = 1) => encodeMessage({ ...request, flags: 2 }, sequence);

/** What ends every answer. @param type 2 for an acknowledgement, 3 for the end of a list. */
const end = (type: number, sequence = 1, errno = 0) => {
  const payload = Buffer.alloc(20);
  payload.writeInt32LE(-errno);
  return encodeMessage({ action: '', type, flags: 2, payload }, sequence);
};

const prefix = Prefix.parse('10.1.0.2/24');
const table: NftTable = { family: 'inet', name: 'cni' };
const set = { table, name: 'ports' };
const routeAnswers = [
  createLink({ kind: 'veth' }, { name: 'eth0', mtu: 1500, mac: '02:00:00:00:00:01', alias: 'a' }),
  addAddress(1, prefix),
  addRoute({ dst: prefix.network, link: 1, gw: Address.parse('10.1.0.1'), priority: 5 }),
  addRoutingRule({ src: prefix, table: 100 }),
  addTokenBucket(1, tokenBucket(1e6, 1e5, 25), 'eth0'),
  redirectIngress(1, 2, 'eth0'),
  setNeighbour(1, { address: Address.parse('10.1.0.2'), mac: '02:00:00:00:00:01' }),
  setForwarding(1, { address: Address.parse('10.1.0.2'), mac: '02:00:00:00:00:01' }),
];
const nftAnswers = [
  addChain(table, 'c', { hook: { type: 'filter', hook: 2, priority: 0 }, comment: 'a' }),
  nft.addRule(table, 'c', [counter], 'comment', 'owner'),
  addSet(set, 'ifname', 1),
  addElement(set, Buffer.from('eth0')),
];

/**
 * Answers to these requests: with something missing, complete, followed by one to another request, and an
 * error.
 */
const samplesOf = (requests: readonly Request[]) => [
  ...requests.flatMap(incompleteOf).map((request) => Buffer.concat([answer(request), end(2)])),
  ...requests.flatMap((request) => [
    Buffer.concat([answer(request), end(3)]),
    Buffer.concat([answer(request), answer(request), end(2)]),
    Buffer.concat([answer(request, 7), end(2, 7), end(2)]),
  ]),
  end(2, 1, 19),
  Buffer.concat([answer(requests[0]!, 0), answer(requests[0]!), end(2)]),
];

/** A target in which each of these calls gets the same answer. */
function answered(
  name: string,
  requests: readonly Request[],
  calls: readonly ((socket: NetlinkSocket) => unknown)[],
): Target {
  return {
    name,
    samples: samplesOf(requests),
    run(input) {
      for (const call of calls)
        withAnswers(input.length === 0 ? [] : [input], (socket) => mayRefuse(() => call(socket)));
    },
  };
}

const anyRequest: Request = { action: 'ask', type: 18, flags: 0, payload: new Uint8Array(16) };

/** @throws Error when messages that belong to another request are accepted. */
function requireSequence(messages: readonly Message[], sequence: number): void {
  const foreign = messages.find((message) => message.sequence !== sequence);
  if (foreign)
    throw new TypeError(`The answer to request ${foreign.sequence} was taken for that to ${sequence}`);
}

export const netlinkTargets: readonly Target[] = [
  conntrackTarget,
  answered('netlink-route', routeAnswers, [
    listLinks,
    (socket) => getLink(socket, 1),
    (socket) => listAddresses(socket),
    (socket) => listRoutes(socket),
    (socket) => lookUpRoute(socket, prefix.address),
    listRoutingRules,
    (socket) => getTokenBucket(socket, 1),
    (socket) => ingressRedirections(socket, 1),
    (socket) => listNeighbours(socket, 1),
    (socket) => listForwarding(socket, 1),
    (socket) => listBridgeVlans(socket, 1),
  ]),
  answered('netlink-nftables', nftAnswers, [
    (socket) => listBaseChains(socket, 'inet'),
    (socket) => hasChain(socket, table, 'c'),
    (socket) => isOwnedTable(socket, table),
    (socket) => nft.listRules(socket, table, 'c').map((rule) => [nft.verdictOf(rule), nft.targetChain(rule)]),
    (socket) => findSets(socket, 'ports'),
    (socket) => listRawRules(socket, table, 'c'),
    (socket) => getRawRules(socket, table, [{ chain: 'c', handle: 1n }]),
  ]),
  answered(
    'netlink-socket',
    [...routeAnswers, ...nftAnswers],
    [
      (socket) => requireSequence(socket.execute(anyRequest)[0]!, 1),
      (socket) => requireSequence(socket.execute(anyRequest, anyRequest)[1]!, 2),
      (socket) => requireSequence(socket.dump(anyRequest), 1),
      (socket) =>
        socket.search(anyRequest, (data, from, to) =>
          requireSequence(decodeMessages(data.subarray(from - headerSize, to)), 1),
        ),
      (socket) => socket.transaction(10, [anyRequest]),
      (socket) => socket.drain(),
    ],
  ),
];
