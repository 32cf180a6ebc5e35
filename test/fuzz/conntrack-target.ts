/** Tracked connections as the kernel lists them. */

import { forgetUdp } from '../../lib/kernel/conntrack.ts';
import { bytesAttr, concat, decodeMessages, encodeMessage, type Request } from '../../lib/netlink/message.ts';
import { NetlinkSocket } from '../../lib/netlink/socket.ts';
import { incompleteOf } from './incomplete.ts';
import { mayRefuse, type Target } from './target.ts';

/** NLA_F_NESTED. */
const nested = 0x8000;
/** Message types: of a listed connection, of a request for the list, and of one that deletes a connection. */
const types = { listed: 0x100, list: 0x101, forget: 0x102 };
const address = Uint8Array.of(127, 0, 0, 1);

/** The addresses and ports of a connection. Source: linux/netfilter/nfnetlink_conntrack.h. */
function tuple(direction: number): Uint8Array {
  const addresses = concat([bytesAttr(1, address), bytesAttr(2, address)]);
  const ports = concat([bytesAttr(1, Uint8Array.of(17)), bytesAttr(3, Uint8Array.of(0, 53))]);
  return bytesAttr(
    direction | nested,
    concat([bytesAttr(1 | nested, addresses), bytesAttr(2 | nested, ports)]),
  );
}

/** A UDP connection to port 53 of the host. */
const connection: Request = {
  ...{ action: 'list', type: types.listed, flags: 0 },
  payload: concat([Uint8Array.of(2, 0, 0, 0), tuple(1), tuple(2), bytesAttr(12, Uint8Array.of(0, 0, 0, 7))]),
};

/** Forgets the connections that an answer of the kernel lists. They are only counted. @returns how many. */
function forgetTracked(answer: Uint8Array): number {
  const { search, attempt } = NetlinkSocket.prototype;
  let forgotten = 0;
  NetlinkSocket.prototype.search = function (request, visit) {
    if (request.type !== types.list) search.call(this, request, visit);
    else for (const { payload } of decodeMessages(answer)) visit(Buffer.from(payload), 0, payload.length);
  };
  NetlinkSocket.prototype.attempt = (...requests) => {
    forgotten += requests.filter(({ type }) => type === types.forget).length;
    return requests.map(() => []);
  };
  try {
    mayRefuse(() => forgetUdp(([4, 6] as const).map((family) => ({ family, port: 53 }))));
  } finally {
    Object.assign(NetlinkSocket.prototype, { search, attempt });
  }
  return forgotten;
}

const whole = encodeMessage(connection, 1);

export const conntrackTarget: Target = {
  name: 'netlink-conntrack',
  samples: [whole, ...incompleteOf(connection).map((request) => encodeMessage(request, 1))],
  run(answer) {
    const forgotten = forgetTracked(answer);
    if (answer.equals(whole) && forgotten === 0) throw new Error('The connection was not found');
  },
};
