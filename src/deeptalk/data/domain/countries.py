"""Countries with capital and continent, and the languages and currencies of the best known.

A capital or continent is left empty where it is disputed, shared or changing. Spelling is plain ASCII.
"""

# fmt: off
AFRICA = (
    ("Algeria", "Algiers"), ("Angola", "Luanda"), ("Benin", "Porto Novo"), ("Botswana", "Gaborone"),
    ("Burkina Faso", "Ouagadougou"), ("Burundi", "Gitega"), ("Cameroon", "Yaounde"), ("Cape Verde", "Praia"),
    ("the Central African Republic", "Bangui"), ("Chad", "Ndjamena"), ("the Comoros", "Moroni"),
    ("the Democratic Republic of the Congo", "Kinshasa"), ("the Republic of the Congo", "Brazzaville"),
    ("Djibouti", ""), ("Egypt", "Cairo"), ("Equatorial Guinea", ""), ("Eritrea", "Asmara"),
    ("Eswatini", "Mbabane"), ("Ethiopia", "Addis Ababa"), ("Gabon", "Libreville"), ("the Gambia", "Banjul"),
    ("Ghana", "Accra"), ("Guinea", "Conakry"), ("Guinea Bissau", "Bissau"), ("Ivory Coast", "Yamoussoukro"),
    ("Kenya", "Nairobi"), ("Lesotho", "Maseru"), ("Liberia", "Monrovia"), ("Libya", "Tripoli"),
    ("Madagascar", "Antananarivo"), ("Malawi", "Lilongwe"), ("Mali", "Bamako"), ("Mauritania", "Nouakchott"),
    ("Mauritius", "Port Louis"), ("Morocco", "Rabat"), ("Mozambique", "Maputo"), ("Namibia", "Windhoek"),
    ("Niger", "Niamey"), ("Nigeria", "Abuja"), ("Rwanda", "Kigali"), ("Sao Tome and Principe", "Sao Tome"),
    ("Senegal", "Dakar"), ("Seychelles", "Victoria"), ("Sierra Leone", "Freetown"), ("Somalia", "Mogadishu"),
    ("South Africa", "Pretoria"), ("South Sudan", "Juba"), ("Sudan", "Khartoum"), ("Tanzania", "Dodoma"),
    ("Togo", "Lome"), ("Tunisia", "Tunis"), ("Uganda", "Kampala"), ("Zambia", "Lusaka"), ("Zimbabwe",
    "Harare"),
)
ASIA = (
    ("Afghanistan", "Kabul"), ("Bahrain", "Manama"), ("Bangladesh", "Dhaka"), ("Bhutan", "Thimphu"),
    ("Brunei", "Bandar Seri Begawan"), ("Cambodia", "Phnom Penh"), ("China", "Beijing"), ("East Timor",
    "Dili"),
    ("India", "New Delhi"), ("Indonesia", "Jakarta"), ("Iran", "Tehran"), ("Iraq", "Baghdad"), ("Israel", ""),
    ("Japan", "Tokyo"), ("Jordan", "Amman"), ("Kazakhstan", "Astana"), ("Kuwait", "Kuwait City"),
    ("Kyrgyzstan", "Bishkek"), ("Laos", "Vientiane"), ("Lebanon", "Beirut"), ("Malaysia", "Kuala Lumpur"),
    ("the Maldives", "Male"), ("Mongolia", "Ulaanbaatar"), ("Myanmar", "Naypyidaw"), ("Nepal", "Kathmandu"),
    ("North Korea", "Pyongyang"), ("Oman", "Muscat"), ("Pakistan", "Islamabad"), ("the Philippines",
    "Manila"),
    ("Qatar", "Doha"), ("Saudi Arabia", "Riyadh"), ("Singapore", ""), ("South Korea", "Seoul"),
    ("Sri Lanka", ""), ("Syria", "Damascus"), ("Taiwan", "Taipei"), ("Tajikistan", "Dushanbe"),
    ("Thailand", "Bangkok"), ("Turkmenistan", "Ashgabat"), ("the United Arab Emirates", "Abu Dhabi"),
    ("Uzbekistan", "Tashkent"), ("Vietnam", "Hanoi"), ("Yemen", "Sanaa"),
)
EUROPE = (
    ("Albania", "Tirana"), ("Andorra", "Andorra la Vella"), ("Austria", "Vienna"), ("Belarus", "Minsk"),
    ("Belgium", "Brussels"), ("Bosnia and Herzegovina", "Sarajevo"), ("Bulgaria", "Sofia"),
    ("Croatia", "Zagreb"), ("the Czech Republic", "Prague"), ("Denmark", "Copenhagen"), ("Estonia",
    "Tallinn"),
    ("Finland", "Helsinki"), ("France", "Paris"), ("Germany", "Berlin"), ("Greece", "Athens"),
    ("Hungary", "Budapest"), ("Iceland", "Reykjavik"), ("Ireland", "Dublin"), ("Italy", "Rome"),
    ("Kosovo", "Pristina"), ("Latvia", "Riga"), ("Liechtenstein", "Vaduz"), ("Lithuania", "Vilnius"),
    ("Luxembourg", ""), ("Malta", "Valletta"), ("Moldova", "Chisinau"), ("Monaco", ""),
    ("Montenegro", "Podgorica"), ("the Netherlands", "Amsterdam"), ("North Macedonia", "Skopje"),
    ("Norway", "Oslo"), ("Poland", "Warsaw"), ("Portugal", "Lisbon"), ("Romania", "Bucharest"),
    ("Russia", "Moscow"), ("San Marino", ""), ("Serbia", "Belgrade"), ("Slovakia", "Bratislava"),
    ("Slovenia", "Ljubljana"), ("Spain", "Madrid"), ("Sweden", "Stockholm"), ("Switzerland", "Bern"),
    ("Ukraine", "Kyiv"), ("the United Kingdom", "London"),
)
NORTH_AMERICA = (
    ("Antigua and Barbuda", "Saint John's"), ("the Bahamas", "Nassau"), ("Barbados", "Bridgetown"),
    ("Belize", "Belmopan"), ("Canada", "Ottawa"), ("Costa Rica", "San Jose"), ("Cuba", "Havana"),
    ("Dominica", "Roseau"), ("the Dominican Republic", "Santo Domingo"), ("El Salvador", "San Salvador"),
    ("Grenada", "Saint George's"), ("Guatemala", "Guatemala City"), ("Haiti", "Port au Prince"),
    ("Honduras", "Tegucigalpa"), ("Jamaica", "Kingston"), ("Mexico", "Mexico City"), ("Nicaragua", "Managua"),
    ("Panama", "Panama City"), ("Saint Kitts and Nevis", "Basseterre"), ("Saint Lucia", "Castries"),
    ("Saint Vincent and the Grenadines", "Kingstown"), ("Trinidad and Tobago", "Port of Spain"),
    ("the United States", "Washington"),
)
OCEANIA = (
    ("Australia", "Canberra"), ("Fiji", "Suva"), ("Kiribati", "Tarawa"), ("the Marshall Islands", "Majuro"),
    ("Micronesia", "Palikir"), ("Nauru", ""), ("New Zealand", "Wellington"), ("Palau", "Ngerulmud"),
    ("Papua New Guinea", "Port Moresby"), ("Samoa", "Apia"), ("the Solomon Islands", "Honiara"),
    ("Tonga", "Nukualofa"), ("Tuvalu", "Funafuti"), ("Vanuatu", "Port Vila"),
)
SOUTH_AMERICA = (
    ("Argentina", "Buenos Aires"), ("Bolivia", "Sucre"), ("Brazil", "Brasilia"), ("Chile", "Santiago"),
    ("Colombia", "Bogota"), ("Ecuador", "Quito"), ("Guyana", "Georgetown"), ("Paraguay", "Asuncion"),
    ("Peru", "Lima"), ("Suriname", "Paramaribo"), ("Uruguay", "Montevideo"), ("Venezuela", "Caracas"),
)
# Counted to more than one continent, so their continent is never asked.
BETWEEN = (
    ("Armenia", "Yerevan"), ("Azerbaijan", "Baku"), ("Cyprus", "Nicosia"), ("Georgia", "Tbilisi"),
    ("Turkey", "Ankara"),
)

BY_CONTINENT = {
    "Africa": AFRICA, "Asia": ASIA, "Europe": EUROPE, "North America": NORTH_AMERICA,
    "Oceania": OCEANIA, "South America": SOUTH_AMERICA,
}
CAPITALS = {
    country: capital for rows in (*BY_CONTINENT.values(), BETWEEN) for country, capital in rows if capital
}
CONTINENTS = {country: continent for continent, rows in BY_CONTINENT.items() for country, _ in rows}

LANGUAGES = {
    "France": "French", "Germany": "German", "Italy": "Italian", "Spain": "Spanish", "Portugal": "Portuguese",
    "Austria": "German", "Greece": "Greek", "Poland": "Polish", "Hungary": "Hungarian", "Romania": "Romanian",
    "Bulgaria": "Bulgarian", "Croatia": "Croatian", "the Czech Republic": "Czech", "Slovakia": "Slovak",
    "Slovenia": "Slovene", "Denmark": "Danish", "Sweden": "Swedish", "Norway": "Norwegian",
    "Iceland": "Icelandic", "Finland": "Finnish", "the Netherlands": "Dutch", "Estonia": "Estonian",
    "Latvia": "Latvian", "Lithuania": "Lithuanian", "Russia": "Russian", "Ukraine": "Ukrainian",
    "Serbia": "Serbian", "Albania": "Albanian", "Turkey": "Turkish", "Japan": "Japanese", "China": "Chinese",
    "South Korea": "Korean", "North Korea": "Korean", "Thailand": "Thai", "Vietnam": "Vietnamese",
    "Indonesia": "Indonesian", "Mongolia": "Mongolian", "Bangladesh": "Bengali", "Iran": "Persian",
    "Saudi Arabia": "Arabic", "Egypt": "Arabic", "Syria": "Arabic", "Jordan": "Arabic", "Mexico": "Spanish",
    "Argentina": "Spanish", "Chile": "Spanish", "Colombia": "Spanish", "Peru": "Spanish", "Cuba": "Spanish",
    "Brazil": "Portuguese", "Angola": "Portuguese", "the United States": "English", "Australia": "English",
    "the United Kingdom": "English", "Jamaica": "English", "Israel": "Hebrew", "Cambodia": "Khmer",
    "Nepal": "Nepali", "Armenia": "Armenian", "Georgia": "Georgian", "Malaysia": "Malay",
}
CURRENCIES = {
    "France": "euro", "Germany": "euro", "Italy": "euro", "Spain": "euro", "Portugal": "euro",
    "Austria": "euro", "Greece": "euro", "Finland": "euro", "Ireland": "euro", "Belgium": "euro",
    "the Netherlands": "euro", "Poland": "zloty", "Hungary": "forint", "Romania": "leu", "Russia": "ruble",
    "Ukraine": "hryvnia", "Serbia": "dinar", "Albania": "lek", "Turkey": "lira", "Japan": "yen",
    "China": "yuan", "South Korea": "won", "Thailand": "baht", "Vietnam": "dong", "Indonesia": "rupiah",
    "India": "rupee", "Pakistan": "rupee", "Nepal": "rupee", "Bangladesh": "taka", "Iran": "rial",
    "Iraq": "dinar", "Saudi Arabia": "riyal", "Egypt": "pound", "the United Kingdom": "pound",
    "Morocco": "dirham", "Mexico": "peso", "Argentina": "peso", "Chile": "peso", "Colombia": "peso",
    "the Philippines": "peso", "Uruguay": "peso", "Peru": "sol", "Brazil": "real", "Canada": "dollar",
    "the United States": "dollar", "Australia": "dollar", "New Zealand": "dollar", "Jamaica": "dollar",
    "Israel": "shekel", "Kenya": "shilling", "Uganda": "shilling", "Nigeria": "naira", "Ghana": "cedi",
    "South Africa": "rand", "Ethiopia": "birr", "Switzerland": "franc", "Malaysia": "ringgit",
    "Cambodia": "riel", "Angola": "kwanza", "Guatemala": "quetzal", "Honduras": "lempira",
    "Denmark": "krone", "Norway": "krone",
}
