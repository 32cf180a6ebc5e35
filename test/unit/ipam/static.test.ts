import test from 'ava';
import { plugin } from '../../../ipam/static.ts';
import { Address, Prefix } from '../../../lib/ip.ts';

test('its pools are its addresses, of which there may be none', (t) => {
  const network = { cniVersion: '1.1.0', name: 'net', type: 'bridge' };
  const pools = (config: object) =>
    plugin.pools!({ ...network, ...config } as Parameters<typeof plugin.pools & object>[0]);
  const addresses = ['10.1.0.5/24', 'fd00::5/64'].map((text) => ({ address: Prefix.parse(text) }));
  t.deepEqual(pools({ ipam: { type: 'static', addresses } }), [
    { subnet: '10.1.0.0/24', range: '10.1.0.5-10.1.0.5' },
    { subnet: 'fd00::/64', range: 'fd00::5-fd00::5' },
  ]);
  t.deepEqual(pools({ ipam: { type: 'static' } }), []);
  t.deepEqual(pools({}), []);
});

test('a route by a gateway of the other family is refused', (t) => {
  const validate = (gw: string) => {
    const routes = [{ dst: Prefix.parse('10.9.0.0/16'), gw: Address.parse(gw) }];
    const config = { cniVersion: '1.1.0', name: 'net', type: 'bridge', ipam: { type: 'static', routes } };
    plugin.validate!(config as Parameters<NonNullable<typeof plugin.validate>>[0]);
  };
  t.notThrows(() => validate('10.1.0.1'));
  t.throws(() => validate('fd00::1'), { message: /gateway "fd00::1", which is of the other family/ });
});
