/**
 * A DHCP server that misbehaves on demand, for the tests: run inside a namespace, as
 *
 *     node dhcp-server.ts silent|garbage|nak|used|maskless|terse|forgetful
 *
 * It prints a line when it listens. With "used", it offers 10.99.0.5 until a client declines it, then
 * 10.99.0.6, and prints what it is asked. With "maskless", it grants 10.99.0.5 without a netmask; with "terse",
 * it leaves the netmask out of renewals, before which it acknowledges another address. With "forgetful", it
 * refuses to renew what it has granted, and grants it again. The last two have clients renew after three
 * seconds, and print what they are asked.
 */

import { createSocket } from 'node:dgram';
import { decodeMessage, encodeMessage, MessageType, Option, typeOf } from '../../ipam/dhcp/packet.ts';
import { Address } from '../../lib/ip.ts';

const manner = process.argv[2];
const own = Uint8Array.of(10, 99, 255, 254);
let isDeclined = false;
const socket = createSocket({ type: 'udp4', reuseAddr: true });
socket.on('message', (data) => {
  const asked = decodeMessage(data);
  if (!asked || manner === 'silent') return;
  const send = (bytes: Uint8Array) => socket.send(bytes, 68, '255.255.255.255');
  if (manner === 'garbage') {
    send(Buffer.from('garbage'));
    send(new Uint8Array(300));
    const torn = encodeMessage({ ...asked, op: 2, yourAddress: Address.parse('10.99.0.5') });
    torn[241] = 255;
    send(torn.subarray(0, 250));
    // An offer that offers nothing.
    send(
      encodeMessage({
        ...asked,
        op: 2,
        options: new Map([[Option.MessageType, Uint8Array.of(MessageType.Offer)]]),
      }),
    );
    return;
  }
  if (manner === 'used' || manner === 'terse' || manner === 'forgetful') {
    const name = Object.entries(MessageType).find(([, type]) => type === typeOf(asked))?.[0];
    const requested = asked.options.get(Option.RequestedAddress);
    console.log(`${name} ${requested ? Address.fromBytes(requested) : ''}`.trim());
    if (typeOf(asked) === MessageType.Decline) isDeclined = true;
    if (typeOf(asked) !== MessageType.Discover && typeOf(asked) !== MessageType.Request) return;
  }
  const isRenewal = typeOf(asked) === MessageType.Request && asked.clientAddress?.isUnspecified === false;
  const isRefused = manner === 'nak' || (manner === 'forgetful' && isRenewal);
  const isMaskless = manner === 'maskless' || (manner === 'terse' && isRenewal);
  const answer =
    typeOf(asked) === MessageType.Discover
      ? MessageType.Offer
      : isRefused
        ? MessageType.Nak
        : MessageType.Ack;
  const grant = (address: string) =>
    send(
      encodeMessage({
        ...asked,
        op: 2,
        yourAddress: Address.parse(address),
        options: new Map([
          [Option.MessageType, Uint8Array.of(answer)],
          [Option.ServerIdentifier, own],
          ...(isMaskless ? [] : [[Option.SubnetMask, Uint8Array.of(255, 255, 0, 0)] as const]),
          [Option.LeaseTime, Uint8Array.of(0, 0, 1, 0)],
          ...(manner === 'terse' || manner === 'forgetful'
            ? [[Option.RenewalTime, Uint8Array.of(0, 0, 0, 3)] as const]
            : []),
        ]),
      }),
    );
  if (manner === 'terse' && isRenewal) grant('10.99.0.7');
  grant(isDeclined ? '10.99.0.6' : '10.99.0.5');
});
socket.bind(67, () => {
  socket.setBroadcast(true);
  console.log('ready');
});
process.stdin.resume().on('end', () => process.exit());
