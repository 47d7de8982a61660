"""Knows the ISO 3166-1 code of a state by the names that the lists use (`XK`: Kosovo, user-assigned)."""

from __future__ import annotations

from functools import cache

_TABLE = """\
AD Andorra
AE United Arab Emirates;UAE
AF Afghanistan
AG Antigua and Barbuda
AI Anguilla
AL Albania
AM Armenia
AO Angola
AR Argentina
AT Austria
AU Australia
AW Aruba
AZ Azerbaijan
BA Bosnia and Herzegovina;Bosnia;Bosnia-Herzegovina
BB Barbados
BD Bangladesh
BE Belgium
BF Burkina Faso
BG Bulgaria
BH Bahrain
BI Burundi
BJ Benin
BM Bermuda
BN Brunei;Brunei Darussalam
BO Bolivia;Bolivia (Plurinational State of)
BR Brazil
BS Bahamas;Bahamas, The;The Bahamas
BT Bhutan
BW Botswana
BY Belarus
BZ Belize
CA Canada
CD Democratic Republic of the Congo;Congo, Democratic Republic of the;DRC
CF Central African Republic
CG Congo;Republic of the Congo;Congo, Republic of the
CH Switzerland
CI Côte d'Ivoire;Cote d'Ivoire;Cote d Ivoire;Ivory Coast;Côte d’Ivoire
CK Cook Islands
CL Chile
CM Cameroon
CN China;People's Republic of China
CO Colombia
CR Costa Rica
CU Cuba
CV Cape Verde;Cabo Verde
CW Curacao;Curaçao
CY Cyprus
CZ Czech Republic;Czechia
DE Germany
DJ Djibouti
DK Denmark
DM Dominica
DO Dominican Republic
DZ Algeria
EC Ecuador
EE Estonia
EG Egypt
ER Eritrea
ES Spain
ET Ethiopia
FI Finland
FJ Fiji
FM Micronesia
FR France
GA Gabon
GB United Kingdom;United Kingdom of Great Britain and Northern Ireland;UK;Great Britain;England
GD Grenada
GE Georgia
GH Ghana
GI Gibraltar
GM Gambia;Gambia, The;The Gambia
GN Guinea
GQ Equatorial Guinea
GR Greece
GT Guatemala
GW Guinea-Bissau
GY Guyana
HK Hong Kong;China, Hong Kong Special Administrative Region
HN Honduras
HR Croatia
HT Haiti
HU Hungary
ID Indonesia
IE Ireland
IL Israel
IM Isle of Man;Man, Isle of
IN India
IQ Iraq
IR Iran;Iran (Islamic Republic of);Islamic Republic of Iran
IS Iceland
IT Italy
JE Jersey
JM Jamaica
JO Jordan
JP Japan
KE Kenya
KG Kyrgyzstan;Kyrgyz Republic
KH Cambodia
KI Kiribati
KM Comoros
KN Saint Kitts and Nevis;St. Kitts and Nevis
KP Democratic People's Republic of Korea;Korea, North;North Korea;DPRK;Democratic People’s Republic of Korea
KR Republic of Korea;Korea, South;South Korea
KW Kuwait
KY Cayman Islands
KZ Kazakhstan
LA Laos;Lao People's Democratic Republic
LB Lebanon
LC Saint Lucia
LI Liechtenstein
LK Sri Lanka
LR Liberia
LS Lesotho
LT Lithuania
LU Luxembourg
LV Latvia
LY Libya;Libyan Arab Jamahiriya
MA Morocco
MC Monaco
MD Moldova;Republic of Moldova;Moldova, Republic of
ME Montenegro
MG Madagascar
MH Marshall Islands;Marshall Is
MK North Macedonia;Macedonia;The former Yugoslav Republic of Macedonia;North Macedonia, The Republic of
ML Mali
MM Myanmar;Burma
MN Mongolia
MO Macau;Macao
MR Mauritania
MT Malta
MU Mauritius
MV Maldives
MW Malawi
MX Mexico
MY Malaysia
MZ Mozambique
NA Namibia
NE Niger
NG Nigeria
NI Nicaragua
NL Netherlands;The Netherlands
NO Norway
NP Nepal
NZ New Zealand
OM Oman
PA Panama
PE Peru
PG Papua New Guinea
PH Philippines;The Philippines
PK Pakistan
PL Poland
PR Puerto Rico
PS State of Palestine;Palestinian;Palestine;Gaza;West Bank;Region: Gaza;Occupied Palestinian Territory
PT Portugal
PW Palau
PY Paraguay
QA Qatar
RO Romania
RS Serbia
RU Russia;Russian Federation
RW Rwanda
SA Saudi Arabia
SB Solomon Islands
SC Seychelles
SD Sudan;The Sudan
SE Sweden
SG Singapore
SI Slovenia
SK Slovakia
SL Sierra Leone
SM San Marino
SN Senegal
SO Somalia
SR Suriname
SS South Sudan
ST Sao Tome and Principe
SV El Salvador
SX Sint Maarten
SY Syria;Syrian Arab Republic
SZ Eswatini;Swaziland
TC Turks and Caicos Islands
TD Chad
TG Togo
TH Thailand
TJ Tajikistan
TL Timor-Leste
TM Turkmenistan
TN Tunisia
TO Tonga
TR Turkey;Türkiye;Turkiye
TT Trinidad and Tobago
TV Tuvalu
TW Taiwan
TZ Tanzania;United Republic of Tanzania
UA Ukraine
UG Uganda
US United States;United States of America;USA
UY Uruguay
UZ Uzbekistan
VA Holy See;Vatican City
VC Saint Vincent and the Grenadines
VE Venezuela;Venezuela (Bolivarian Republic of)
VG Virgin Islands, British;British Virgin Islands
VI Virgin Islands, U.S.
VN Vietnam;Viet Nam
VU Vanuatu
WS Samoa
XK Kosovo
YE Yemen
ZA South Africa
ZM Zambia
ZW Zimbabwe
"""
"""One state a line: code, then its names in English with a semicolon between them."""


def code_of(text: str) -> str | None:
    """Give the code for a code or an English name, in any case; None: not in the table."""
    return _codes().get(text.strip().casefold())


def name_of(code: str) -> str | None:
    """Give the English name of a code; None: not in the table."""
    return _names().get(code)


@cache
def _names() -> dict[str, str]:
    lines = (line.partition(" ") for line in _TABLE.splitlines())
    return {code: names.partition(";")[0] for code, _, names in lines}


@cache
def _codes() -> dict[str, str]:
    found: dict[str, str] = {}
    for line in _TABLE.splitlines():
        code, _, names = line.partition(" ")
        found |= {name.casefold(): code for name in (code, *names.split(";"))}
    return found
