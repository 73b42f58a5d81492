"""Fifty short texts of different subjects and lengths, on which `diffretriever check` tries a model."""

_SENTENCES = """Plants turn sunlight, water and air into sugar.
How tall is the Eiffel Tower?
The committee postponed its vote until the budget had been audited.
Penguins cannot fly but swim well.
best price for winter tyres
A violin has four strings, which are tuned in fifths.
The treaty ended a war of thirty years.
Add the flour slowly and stir until the dough is smooth.
Vaccines train the immune system without causing the disease.
symptoms of iron deficiency
The river floods the valley every spring when the snow melts.
Interest is paid on the principal and on earlier interest.
Light needs about eight minutes from the sun to the earth.
who wrote the first detective story
The parser reports the line and the column of each error.
Glaciers carve broad valleys with steep walls.
The goalkeeper saved two penalties in the final.
Steel rusts when it is exposed to water and oxygen.
He sold the farm by the lake and moved into the city.
capital of Mongolia
Bees tell each other where flowers are by dancing.
The judge ruled that the contract was void.
A prime number has exactly two divisors.
Most of the coffee in the world grows between the tropics.
how to remove red wine from a carpet
The library lends tools as well as books.
Sound travels faster in water than in air.
The museum shows paintings of the early Renaissance.
Insulin lowers the level of sugar in the blood.
train from Vienna to Venice overnight
The engine burns hydrogen and leaves only water.
Old maps show a coast that no longer exists.
Inflation fell for the third month in a row.
Yeast makes bread rise.
The index stores one vector for every passage.
Volcanic soil is rich in minerals.
is it safe to eat raw mushrooms
The orchestra rehearsed the slow movement again.
Tides follow the moon.
A lease of ten years was signed on Monday.
Owls hunt at night and hear very well.
The satellite measures the height of the sea.
difference between a virus and a bacterium
Her grandmother spoke three languages.
The bridge was closed after an inspection of its cables.
Chess was played in Persia.
Farmers rotate crops so that the soil recovers.
The software update fixes a fault in the brakes.
why is the sky blue
The harbour freezes in January.""".split("\n")

TEXTS: tuple[str, ...] = tuple(
    " ".join(_SENTENCES[i : i + 4]) if i % 5 == 2 else sentence for i, sentence in enumerate(_SENTENCES)
)
"""Every fifth text is a paragraph of up to four sentences, so that a batch has texts of different lengths."""
