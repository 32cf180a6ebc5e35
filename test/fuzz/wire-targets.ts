/** What arrives from the kernel, from other processes and from the network. */

import { Incoming } from '../../agent/protocol.ts';
import { isUsable, readGrant } from '../../ipam/dhcp/grant.ts';
import { decodeMessage, encodeMessage, Option } from '../../ipam/dhcp/packet.ts';
import { readRequest } from '../../ipam/dhcp/protocol.ts';
import { parseRules, renderRule } from '../../lib/firewall/rules.ts';
import { Address } from '../../lib/ip.ts';
import { Attributes, decodeMessages, encodeMessage as encodeNetlink } from '../../lib/netlink/message.ts';
import { counter, nftExpressionReaders } from './nft-sample.ts';
import { agentOffer } from './samples.ts';
import { mayRefuse, type Target } from './target.ts';

const ack = encodeMessage({
  op: 2,
  transaction: 7,
  yourAddress: Address.parse('10.1.0.9'),
  hardwareAddress: Uint8Array.of(2, 0, 0, 0, 0, 1),
  options: new Map([
    [Option.MessageType, Uint8Array.of(5)],
    [Option.SubnetMask, Uint8Array.of(255, 255, 255, 0)],
    [Option.Router, Uint8Array.of(10, 1, 0, 1)],
    [Option.LeaseTime, Uint8Array.of(0, 0, 14, 16)],
    [Option.ServerIdentifier, Uint8Array.of(10, 1, 0, 1)],
    [Option.ClasslessRoutes, Uint8Array.of(8, 10, 10, 1, 0, 1)],
    [Option.StaticRoutes, Uint8Array.of(10, 2, 0, 0, 10, 1, 0, 1)],
  ]),
});
const netlink = encodeNetlink({ action: 'ask', type: 16, flags: 2, payload: counter }, 1);
export const wireTargets: readonly Target[] = [
  {
    name: 'dhcp-packet',
    samples: [ack],
    run(packet) {
      const message = decodeMessage(packet);
      if (message && isUsable(message)) mayRefuse(() => readGrant(message));
    },
  },
  {
    name: 'dhcp-request',
    samples: [
      '{"method":"collect","network":"n","keep":["c"]}',
      '{"method":"allocate","owner":{"network":"n","containerId":"c","ifname":"e","netns":"/n"},"config":{},"args":{}}',
    ],
    run: (line) => mayRefuse(() => readRequest(line.toString('utf8'))),
  },
  {
    name: 'iptables-listing',
    samples: [
      '-P INPUT ACCEPT\n-A CNI-A -s 10.1.0.2/32 -m comment --comment "name: \\"n\\" id: \\"c\\"" -j X\n',
    ],
    run(listing) {
      for (const rule of parseRules(listing.toString('utf8'))) mayRefuse(() => renderRule('-A', rule));
    },
  },
  {
    name: 'agent-protocol',
    samples: [agentOffer],
    run(bytes) {
      // However it is cut into pieces, the same must arrive.
      const whole = arrivalOf([bytes]);
      const bytewise = arrivalOf(Array.from(bytes, (byte) => Buffer.of(byte)));
      if (whole !== bytewise) throw new Error(`Arrived whole: ${whole}, in pieces: ${bytewise}`);
    },
  },
  {
    name: 'netlink-message',
    samples: [netlink, Buffer.concat([netlink, netlink])],
    run: (data) =>
      mayRefuse(() => {
        for (const { payload } of decodeMessages(data)) {
          const found = new Attributes(payload);
          mayRefuse(() => [found.u8(1), found.be16(1), found.be32(2), found.be64(1), found.string(1)]);
          mayRefuse(() => found.nested(1));
        }
      }),
  },
  {
    name: 'nftables-expressions',
    samples: [counter],
    run(data) {
      for (const read of nftExpressionReaders) mayRefuse(() => read(data));
    },
  },
];

/** What a connection is understood to say. */
function arrivalOf(pieces: readonly Buffer[]): string {
  const incoming = new Incoming();
  const said: unknown[] = [];
  try {
    for (const piece of pieces) {
      incoming.add(piece);
      if (said.length === 0) said.push(...[incoming.takeOffer()].filter((one) => one !== undefined));
      if (said.length === 1) said.push(...[incoming.takeInput()].filter((one) => one !== undefined));
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    said.push(error.message);
  }
  return JSON.stringify(said);
}
